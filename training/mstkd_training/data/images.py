"""What training needs of a collection of faces: their number, and some of them as pixels."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Images(Protocol):
    """Faces that are read by row: an array, a memory map, or encoded files (`PackedImages`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, 112, 112, 3)`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8, 0 to 255, RGB."""

    def __len__(self) -> int:
        """Return the number of faces."""

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """Return the faces of the rows (int64 `(B,)` or a slice), uint8 `(B, 112, 112, 3)`."""
