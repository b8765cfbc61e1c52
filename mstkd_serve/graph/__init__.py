"""From any recogniser's ONNX file to the served graph: uint8 faces in, unit embeddings out."""

from mstkd_serve.graph.build import build_served_graph
from mstkd_serve.graph.source import INPUT_NAME, OUTPUT_NAME, read_contract, read_metadata

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "build_served_graph", "read_contract", "read_metadata"]
