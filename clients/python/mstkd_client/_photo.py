"""Photos of any size as uint8 RGB arrays, upright; what cannot be trusted is refused undecoded."""

import os
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mstkd_client._decode import FORMATS
from mstkd_client._errors import InvalidFace
from mstkd_client._types import OneFace

MAX_PHOTO_BYTES: Final = 64 * 2**20
MAX_PHOTO_PIXELS: Final = 64 * 10**6
MAX_PHOTO_SIDE: Final = 2**15 - 2  # what OpenCV warps


def read_photo(photo: OneFace) -> NDArray[np.uint8]:
    """Read a photo as it is to be seen: with its EXIF orientation applied.

    Args:
        photo: uint8 RGB `(H, W, 3)`, a path, an encoded image, or a PIL image, of at most 64
            million pixels and 64 MiB. Of a phone's JPEG of several pictures, the main one is read.

    Returns:
        uint8 RGB `(H, W, 3)`, contiguous; the very array where one was given.

    Raises:
        InvalidFace: It is no photo in colour with 8 bits a channel, is too large, or is damaged.
    """
    name = "the photo"
    try:
        if isinstance(photo, Image.Image):
            return _decode(photo, name)
        if isinstance(photo, str | os.PathLike):
            path = Path(os.fsdecode(photo))
            name = f"the photo {path}"
            if not path.is_file():
                raise InvalidFace(f"{name} does not exist, or is a folder. Give an image file.")
            with path.open("rb") as file:
                photo = file.read(MAX_PHOTO_BYTES + 1)
        if isinstance(photo, bytes | bytearray | memoryview):
            if memoryview(photo).nbytes > MAX_PHOTO_BYTES:
                raise InvalidFace(f"{name} holds above {MAX_PHOTO_BYTES} bytes. Reduce it.")
            with Image.open(BytesIO(photo), formats=FORMATS) as image:
                return _decode(image, name)
        pixels = np.asarray(photo)
    except InvalidFace:
        raise
    except Exception as error:  # hostile bytes make Pillow's plugins raise nearly anything
        raise InvalidFace(
            f"{name} cannot be read: {error}. Give uint8 RGB (H, W, 3), a PIL image, or an "
            f"undamaged {', '.join(FORMATS)} as a path or bytes."
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InvalidFace(
            f"{name} is a {type(photo).__name__} of {pixels.dtype} {pixels.shape}. Give one photo: "
            "uint8 RGB (H, W, 3), a path, bytes or a PIL image."
        )
    _check_size(pixels.shape[1], pixels.shape[0], name)
    return np.ascontiguousarray(pixels)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PHOTO_PIXELS or max(width, height) > MAX_PHOTO_SIDE:
        limit = f"{MAX_PHOTO_PIXELS} pixels or {MAX_PHOTO_SIDE} on a side"
        raise InvalidFace(f"{name} is {width}x{height} (width x height), above {limit}. Reduce it.")


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Check a Pillow image by its header, then decode it; returns `(H, W, 3)`."""
    _check_size(*image.size, name)
    if getattr(image, "n_frames", 1) != 1 and image.format != "MPO":
        raise InvalidFace(f"{name} holds several frames. Save the one you mean.")
    # Pillow cuts 16 bits a channel to 8 in mode RGB; only the undecoded file's raw mode tells.
    deep = any(";16B" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if deep or image.mode not in ("RGB", "RGBA"):
        mode = "16 bits a channel" if deep else f"the colour mode {image.mode}"
        raise InvalidFace(f"{name} has {mode}. Save the colour photo as 8-bit RGB.")
    pixels = np.array(ImageOps.exif_transpose(image))
    if "transparency" in image.info or (pixels[..., 3:] != 255).any():
        raise InvalidFace(f"{name} has transparent pixels. Save it as RGB on a background.")
    return np.ascontiguousarray(pixels[..., :3])
