"""Faces as they lie in image files: checked, decoded and encoded one by one."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mstkd_serve.errors import DataError

SIDE: Final = 112
_FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP")
_MODES: Final = frozenset({"RGB", "L", "P", "RGBA", "LA", "1"})
# What Pillow raises on damaged files, depending on the format and on where the damage is.
_DAMAGED = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class UnreadableImageError(DataError):
    """The bytes are no image that can be decoded; the text is the reason, in a few words."""


class WrongSizeError(DataError):
    """The image is not 112 pixels square; the text is its size."""


def decode_face(encoded: bytes | memoryview) -> NDArray[np.uint8]:
    """Decode one face.

    Args:
        encoded: The bytes of a JPEG, PNG, BMP or WebP file of 112 x 112 pixels.

    Returns:
        uint8 RGB `(112, 112, 3)`. Grey and palette images become RGB; alpha is dropped.

    Raises:
        UnreadableImageError: The bytes are damaged, no such image, or neither grey nor RGB of
            8 bits.
        WrongSizeError: The image has another size.
    """
    with _opened(encoded) as image:
        if image.size != (SIDE, SIDE):
            raise WrongSizeError(f"{image.width} x {image.height} pixels")
        return np.asarray(_rgb(image))


def resized_face(encoded: bytes) -> bytes:
    """Scale an image to 112 x 112 and encode it as PNG.

    Raises:
        UnreadableImageError: The bytes are damaged or no such image.
    """
    with _opened(encoded) as image:
        small = _rgb(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return encode_face(np.asarray(small))


def encode_face(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """Encode uint8 RGB `(H, W, 3)` as `PNG` (without loss) or `JPEG` (quality 95)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=95)
    return buffer.getvalue()


@contextmanager
def _opened(encoded: bytes | memoryview) -> Iterator[Image.Image]:
    """Open an image; every kind of damage, then or later, becomes `UnreadableImageError`."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            yield image
    except _DAMAGED as error:
        reason = "no JPEG, PNG, BMP or WebP image" if "identify" in str(error) else str(error)
        raise UnreadableImageError(reason) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode not in _MODES:
        raise UnreadableImageError(f"pixels of mode {image.mode}, neither grey nor RGB of 8 bits")
    return image.convert("RGB")
