"""Copies of a served graph in fewer bits, written only where a gate finds them good enough."""

from mstkd_serve.precision.conversion import Precision, convert
from mstkd_serve.precision.faces import face_images
from mstkd_serve.precision.gate import Bounds, Comparison, compare_graphs

__all__ = ["Bounds", "Comparison", "Precision", "compare_graphs", "convert", "face_images"]
