"""In-process inference: one Protocol, one file per runtime."""

from mstkd_serve.engine.cpu import bf16_instructions
from mstkd_serve.engine.onnxruntime import OnnxRuntimeEngine
from mstkd_serve.engine.openvino import OpenVinoEngine
from mstkd_serve.engine.protocol import Engine

__all__ = ["Engine", "OnnxRuntimeEngine", "OpenVinoEngine", "bf16_instructions"]
