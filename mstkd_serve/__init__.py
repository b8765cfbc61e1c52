"""MSTKD Serve: a face-recognition ONNX file in, a Triton server that answers embeddings out."""

__version__ = "0.1.0"
