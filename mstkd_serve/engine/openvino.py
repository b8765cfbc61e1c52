"""OpenVINO on the CPU, in fp32 or bf16."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import EngineError

Precision = Literal["fp32", "bf16"]


class OpenVinoEngine:
    """An ONNX file with one input, compiled by OpenVINO; `run` gives its first output."""

    def __init__(self, path: Path, precision: Precision = "fp32") -> None:
        """Compile `path` for as many threads as the process may use cores.

        Raises:
            EngineError: OpenVINO is not installed or refuses the file.
        """
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                "OpenVINO is not installed: pip install 'mstkd-serve[openvino]'."
            ) from error
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
        }
        try:
            self._compiled = openvino.Core().compile_model(path, "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise EngineError(f"{path}: OpenVINO refuses the file ({reason}).") from error
        self._request = self._compiled.create_infer_request()
        self._output = self._compiled.output(0)
        self.runtime = f"openvino {openvino.__version__.split('-')[0]} {precision}"
        self._path = path

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run one batch; see `Engine.run`."""
        try:
            answer = self._request.infer([batch], share_inputs=True)[self._output]
        except RuntimeError as error:
            raise EngineError(
                f"{self._path}: OpenVINO failed on a batch of shape {batch.shape} ({error})."
            ) from error
        return np.array(answer, np.float32)  # the request reuses its output memory
