"""Python client of MSTKD Serve."""

__version__ = "0.1.0"
