"""A small graph that compares embeddings: cosine, and the calibrated decision."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mstkd_serve.calibration import Calibration
from mstkd_serve.files import atomic_path
from mstkd_serve.graph.batch import BATCH_AXIS

SCORE_NAME: Final = "score"
"""Output FP32 `[N, 1]`: cosine similarity, -1 to 1."""
ACCEPTED_NAME: Final = "accepted"
"""Output BOOL `[N, 1]`: whether the score reaches the calibrated threshold."""
THRESHOLD_NAME: Final = "threshold"
"""Output FP32 `[N, 1]`: that threshold."""

_OPSET: Final = 17
_IR_VERSION: Final = 8


def write_compare_graph(
    out: Path, inputs: tuple[str, str], embedding_dim: int, calibration: Calibration | None
) -> None:
    """Write a graph from two batches of unit embeddings to their cosine similarities.

    Args:
        out: The ONNX file to write.
        inputs: Names of the two inputs, FP32 `[N, dim]` each.
        embedding_dim: Length of one embedding.
        calibration: The decision to make as well, where the model is calibrated.
    """
    nodes = [
        helper.make_node("Mul", list(inputs), ["products"]),
        helper.make_node("ReduceSum", ["products", "row"], ["cosine"], keepdims=1),
        helper.make_node("Clip", ["cosine", "least", "most"], [SCORE_NAME]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "row": np.array([1], np.int64),
        "least": np.array(-1, np.float32),
        "most": np.array(1, np.float32),
    }
    outputs = {SCORE_NAME: TensorProto.FLOAT}
    if calibration is not None:
        threshold = numpy_helper.from_array(np.array([calibration.threshold], np.float32))
        nodes += [
            helper.make_node("Shape", [SCORE_NAME], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], [THRESHOLD_NAME], value=threshold),
            helper.make_node("GreaterOrEqual", [SCORE_NAME, THRESHOLD_NAME], [ACCEPTED_NAME]),
        ]
        outputs |= {ACCEPTED_NAME: TensorProto.BOOL, THRESHOLD_NAME: TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes,
        "compare",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH_AXIS, embedding_dim])
            for name in inputs
        ],
        [
            helper.make_tensor_value_info(name, kind, [BATCH_AXIS, 1])
            for name, kind in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    with atomic_path(out) as temporary:
        onnx.save(model, temporary)
