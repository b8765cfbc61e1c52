"""ONNX Runtime on the CPU: the reference that every other way of running a model must equal."""

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import EngineError

_ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """An ONNX file in ONNX Runtime's CPU provider; `run` feeds its first input."""

    def __init__(self, path: Path) -> None:
        """Load `path` with as many threads as the process may use cores.

        Raises:
            EngineError: ONNX Runtime is not installed or refuses the file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                "ONNX Runtime is not installed: pip install 'mstkd-serve[cpu]' "
                "(or [gpu], never both)."
            ) from error
        require_one_package()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base class
            raise EngineError(f"{path}: ONNX Runtime refuses the file ({error}).") from error
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._path = path
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]

    def run_named(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Run a graph with several inputs and outputs.

        Args:
            inputs: Every input by its name.

        Returns:
            Every output by its name.

        Raises:
            EngineError: ONNX Runtime refuses the inputs.
        """
        names = [output.name for output in self._session.get_outputs()]
        try:
            answers = self._session.run(names, dict(inputs))
        except Exception as error:  # its exceptions share no public base class
            raise EngineError(f"{self._path}: ONNX Runtime failed ({error}).") from error
        return dict(zip(names, answers, strict=True))

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run one batch; see `Engine.run`."""
        try:
            (output,) = self._session.run(self._outputs, {self._input: batch})
        except Exception as error:  # its exceptions share no public base class
            raise EngineError(
                f"{self._path}: ONNX Runtime failed on a batch of shape {batch.shape} ({error})."
            ) from error
        return np.asarray(output, np.float32)


def require_one_package() -> None:
    """Refuse onnxruntime beside onnxruntime-gpu: they share files, and the last one wins.

    Raises:
        EngineError: Both are installed.
    """
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    if len(found) > 1:
        raise EngineError(
            f"{' and '.join(found)} are both installed and overwrite each other's files. Remove "
            "both (pip uninstall onnxruntime onnxruntime-gpu) and install one: "
            "'mstkd-serve[cpu]' or 'mstkd-serve[gpu]'."
        )
