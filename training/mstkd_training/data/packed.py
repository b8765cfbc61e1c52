"""Many encoded faces one after the other, decoded when they are read."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_training.data.encoded import SIDE, decode_face

_IN_PLACE = 4
"""So few faces are decoded without threads."""


class PackedImages:
    """Encoded faces one after the other; see `data.images.Images`.

    A million faces take 38 GB decoded, and a tenth of that as JPEG.

    Args:
        encoded: The encoded faces one after the other, uint8, usually memory-mapped.
        offsets: int64 `(N + 1,)`; face i lies at `offsets[i]` to `offsets[i + 1]`.

    Raises:
        DataError: The offsets do not fit the faces.
    """

    def __init__(self, encoded: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        if not len(offsets) or int(offsets[-1]) != len(encoded):
            raise DataError(
                f"{len(encoded)} bytes of encoded faces do not fit their offsets. "
                "Run the pipeline again."
            )
        self._encoded = encoded
        self._offsets = offsets

    @classmethod
    def open(cls, path: Path, offsets: NDArray[np.int64]) -> Self:
        """Memory-map a file of encoded faces.

        Raises:
            DataError: The offsets do not fit the file.
        """
        try:
            return cls(np.memmap(path, np.uint8, "r"), offsets)
        except (DataError, ValueError) as error:  # an empty file cannot be mapped
            raise DataError(f"{path}: {error}") from error

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, 112, 112, 3)`."""
        return (len(self), SIDE, SIDE, 3)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8, 0 to 255, RGB."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self._offsets) - 1

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """Decode the faces of the rows (int64 `(B,)` or a slice), uint8 `(B, 112, 112, 3)`.

        Raises:
            IndexError: There is no such row.
        """
        if isinstance(rows, slice):
            chosen = np.arange(*rows.indices(len(self)))
        else:
            chosen = np.asarray(rows, np.int64)
            if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self):
                raise IndexError(f"rows beyond the {len(self)} faces")
        spans = zip(self._offsets[chosen], self._offsets[chosen + 1], strict=True)
        return decode_faces([self._encoded[start:stop].data for start, stop in spans])


def decode_faces(encoded: Iterable[bytes | memoryview]) -> NDArray[np.uint8]:
    """Decode some faces in threads; see `decode_face`.

    Returns:
        uint8 RGB `(N, 112, 112, 3)`.
    """
    waiting = list(encoded)
    faces = np.empty((len(waiting), SIDE, SIDE, 3), np.uint8)

    def decode(place: int) -> None:
        faces[place] = decode_face(waiting[place])

    if len(waiting) <= _IN_PLACE:
        for place in range(len(waiting)):
            decode(place)
    else:
        for _ in decoding_threads().map(decode, range(len(waiting))):
            pass
    return faces


def decoding_threads() -> ThreadPoolExecutor:
    """Return the threads that decode, as many as cores; a forked process gets its own."""
    return _threads_of(os.getpid())


@lru_cache(maxsize=1)
def _threads_of(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(process)), "decode")
