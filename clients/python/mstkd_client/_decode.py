"""Encoded images and Pillow's as uint8 RGB arrays; what does not fit is refused by its header."""

from collections.abc import Mapping
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mstkd_client._errors import InvalidFace
from mstkd_client._wire import FACE_SHAPE

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
MAX_FILE_BYTES: Final = 16 * 2**20
"""No 112x112 image needs more; a larger file is refused unread."""

SIDE: Final = FACE_SHAPE[0]
ALIGN: Final = f"Detect and align the face to {SIDE}x{SIDE} (ArcFace five-point template) first"
_MODE_REASONS: Final[Mapping[str, str]] = {
    "1": "is black and white",
    "L": "is grey",
    "LA": "is grey with alpha",
    "P": "has a palette, so its colours are already reduced",
    "PA": "has a palette, so its colours are already reduced",
    "CMYK": "is CMYK, whose conversion to RGB depends on a colour profile",
    "I": "has more than 8 bits a channel",
    "I;16": "has 16 bits a channel",
    "I;16B": "has 16 bits a channel",
    "I;16L": "has 16 bits a channel",
    "F": "has floating-point pixels",
}


def read_encoded(file: BinaryIO, size: int, name: str) -> NDArray[np.uint8]:
    """Read an aligned face from an encoded image of `size` bytes; returns `(112, 112, 3)`.

    Raises:
        InvalidFace: It is no image, or not of an aligned RGB face.
    """
    if size > MAX_FILE_BYTES:
        raise InvalidFace(f"{name} holds {size} bytes, too many for an aligned face. {ALIGN}.")
    try:
        image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidFace(f"{name} is far larger than {SIDE}x{SIDE} pixels. {ALIGN}.") from error
    except Exception as error:  # hostile bytes make Pillow's plugins raise nearly anything
        raise InvalidFace(f"{name} is not a {', '.join(FORMATS[:-1])} or BMP image.") from error
    with image:
        return read_image(image, name)


def read_image(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Check a Pillow image by its header, then decode it; returns `(112, 112, 3)`.

    Raises:
        InvalidFace: It is not of an aligned RGB face.
    """
    if image.size != (SIDE, SIDE):
        width, height = image.size
        raise InvalidFace(f"{name} is {width}x{height} pixels (width x height). {ALIGN}.")
    if getattr(image, "n_frames", 1) != 1:
        raise InvalidFace(f"{name} holds several frames. Save the one you mean.")
    if _has_16_bit_channels(image):
        raise InvalidFace(f"{name} has 16 bits a channel. Save it as 8-bit RGB.")
    if image.mode not in ("RGB", "RGBA"):
        reason = _MODE_REASONS.get(image.mode, f"has the colour mode {image.mode}")
        raise InvalidFace(f"{name} {reason}. Save the photo as 8-bit RGB.")
    try:
        upright = ImageOps.exif_transpose(image)
        pixels = np.array(upright)
    except Exception as error:  # hostile bytes make Pillow's plugins raise nearly anything
        raise InvalidFace(f"{name} is damaged: its pixels cannot be decoded.") from error
    has_alpha = image.mode == "RGBA" and bool((pixels[..., 3] != 255).any())
    if has_alpha or "transparency" in image.info:
        raise InvalidFace(
            f"{name} has transparent pixels, whose colour depends on a background. "
            "Save it as RGB without transparency."
        )
    return np.ascontiguousarray(pixels[..., :3])


def _has_16_bit_channels(image: Image.Image) -> bool:
    """Tell whether an undecoded file has 16 bits a channel, which Pillow would cut to 8 in RGB."""
    for _, _, _, args in getattr(image, "tile", ()):
        raw_mode = args[0] if isinstance(args, tuple) and args else args
        if isinstance(raw_mode, str) and raw_mode.endswith((";16B", ";16L", ";16N")):
            return True
    return False
