"""Images that a quantiser is calibrated on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.pair_scores import read_face

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def face_images(folder: Path, most: int) -> list[Path]:
    """List images of aligned faces in a folder and its subfolders, spread over all of them.

    Args:
        folder: The folder.
        most: Most images to take.

    Raises:
        DataError: There is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give one with aligned 112x112 faces.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise DataError(f"{folder}: holds no images ({', '.join(_SUFFIXES)}).")
    picked = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[index] for index in picked]


def batches(images: Sequence[Path], size: int) -> Iterator[NDArray[np.uint8]]:
    """Read images in batches, uint8 RGB `(n, 112, 112, 3)`.

    Raises:
        DataError: An image is not an aligned 112x112 RGB face.
    """
    for start in range(0, len(images), size):
        yield np.stack([read_face(path) for path in images[start : start + size]])
