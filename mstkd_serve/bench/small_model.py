"""A recogniser that computes next to nothing: behind it, only the path costs time."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_DIM = 16


def write_small_model(path: Path) -> None:
    """Write a float32 network `[N, 3, 112, 112]` to `[N, 16]`: the mean colour times a matrix."""
    weights = np.random.default_rng(0).normal(size=(3, _DIM)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colours"]),
        helper.make_node("MatMul", ["colours", "weights"], ["embedding"]),
    ]
    shapes: dict[str, list[str | int | None]] = {
        "input": ["N", 3, 112, 112],
        "embedding": ["N", _DIM],
    }
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes, "small", ends[:1], ends[1:], [numpy_helper.from_array(weights, "weights")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
