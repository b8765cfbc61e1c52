"""MSTKD Serve: from a face-recognition ONNX file to a Triton server that answers with embeddings."""

__version__ = "0.1.0"
