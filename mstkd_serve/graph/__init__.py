"""From any recogniser's ONNX file to the served graph: uint8 faces in, unit embeddings out."""

from mstkd_serve.graph.adaptor import (
    AGREEMENT_NAME,
    PART_PREFIX,
    TEACHERS_KEY,
    AdaptorGraph,
    Teacher,
    match_teachers,
    read_adaptor,
    teachers_metadata,
)
from mstkd_serve.graph.bake import WRAPPER_PREFIX
from mstkd_serve.graph.build import build_served_graph
from mstkd_serve.graph.compare import (
    ACCEPTED_NAME,
    SCORE_NAME,
    THRESHOLD_NAME,
    write_compare_graph,
)
from mstkd_serve.graph.fuse import fuse
from mstkd_serve.graph.source import (
    INPUT_NAME,
    OUTPUT_NAME,
    is_served_file,
    read_contract,
    read_metadata,
)

__all__ = [
    "ACCEPTED_NAME",
    "AGREEMENT_NAME",
    "INPUT_NAME",
    "OUTPUT_NAME",
    "PART_PREFIX",
    "SCORE_NAME",
    "TEACHERS_KEY",
    "THRESHOLD_NAME",
    "WRAPPER_PREFIX",
    "AdaptorGraph",
    "Teacher",
    "build_served_graph",
    "fuse",
    "is_served_file",
    "match_teachers",
    "read_adaptor",
    "read_contract",
    "read_metadata",
    "teachers_metadata",
    "write_compare_graph",
]
