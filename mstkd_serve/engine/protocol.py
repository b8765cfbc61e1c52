"""What every in-process runtime offers."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A loaded ONNX file with one input and one output."""

    @property
    def runtime(self) -> str:
        """Name and version of the runtime, such as `onnxruntime 1.31.1`."""

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run one batch.

        Args:
            batch: Of the dtype and shape that the file's input declares.

        Returns:
            The file's output as float32.

        Raises:
            EngineError: The runtime refused the batch.
        """
