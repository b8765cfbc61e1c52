"""Train, distil and export fair face-recognition students (MST-KD)."""

__version__ = "0.1.0"
