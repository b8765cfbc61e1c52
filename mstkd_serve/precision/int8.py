"""Static int8 quantisation by ONNX Runtime's quantiser, calibrated on real faces.

Weights are quantised per channel, symmetric; activations per tensor. The graph is written with
QuantizeLinear and DequantizeLinear around each operator, the form that ONNX Runtime, OpenVINO and
TensorRT all read (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mstkd_serve.errors import EngineError
from mstkd_serve.graph import INPUT_NAME
from mstkd_serve.precision.faces import batches

_BATCH = 8
_WARNINGS, _ERRORS_ONLY = 2, 3
_OPERATORS = ("Conv", "Gemm", "MatMul")


def quantise(model: Path, out: Path, images: Sequence[Path]) -> None:
    """Write an int8 copy of a served graph.

    Args:
        model: The fp32 served graph.
        out: The file to write.
        images: Aligned faces to calibrate the ranges of activations on.

    Raises:
        EngineError: ONNX Runtime is not installed, or cannot quantise the graph.
        DataError: An image is not an aligned face.
    """
    try:
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise EngineError(
            "quantising needs ONNX Runtime: pip install 'mstkd-serve[cpu]'."
        ) from error
    prepared = out.with_name(f"{out.name}.prepared.onnx")
    try:
        with _quiet():
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                out,
                _Faces(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
    finally:
        prepared.unlink(missing_ok=True)


class _Faces:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, images: Sequence[Path]) -> None:
        self._batches: Iterator[Any] = batches(images, _BATCH)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice to its developers off the terminal."""
    import onnxruntime

    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        logging.disable(logging.NOTSET)
