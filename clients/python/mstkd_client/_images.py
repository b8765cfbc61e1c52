"""Whatever a caller gives as faces, as uint8 RGB arrays. Nothing is resized or guessed."""

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mstkd_client._errors import InvalidFace
from mstkd_client._types import Faces, OneFace
from mstkd_client._wire import FACE_SHAPE

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
MAX_FILE_BYTES: Final = 16 * 2**20
"""No 112x112 image needs more; a larger file is refused unread."""

_SIDE: Final = FACE_SHAPE[0]
_ALIGN: Final = f"Detect and align the face to {_SIDE}x{_SIDE} (ArcFace five-point template) first"
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


def read_faces(faces: Faces) -> Iterator[NDArray[np.uint8]]:
    """Read faces one at a time, in order; each is decoded only when it is asked for.

    Args:
        faces: One face, uint8 `(N, 112, 112, 3)`, or an iterable of any mix of these.

    Yields:
        uint8 RGB `(112, 112, 3)`.

    Raises:
        InvalidFace: An input is not an aligned RGB face, or there is none.
    """
    empty = True
    for name, item in _named_items(faces):
        for face in _read_item(item, name):
            empty = False
            yield face
    if empty:
        raise InvalidFace("there are no faces in the input. Give at least one.")


def read_pair(first: OneFace, second: OneFace) -> Iterator[NDArray[np.uint8]]:
    """Read the two faces of a verification.

    Yields:
        uint8 RGB `(112, 112, 3)`, twice.

    Raises:
        InvalidFace: An input is not exactly one aligned RGB face.
    """
    for position, item in (("the first face", first), ("the second face", second)):
        name = _name(position, item)
        faces = list(_read_item(item, name))
        if len(faces) != 1:
            raise InvalidFace(f"{name} holds {len(faces)} faces. Give exactly one.")
        yield faces[0]


def _named_items(faces: Faces) -> Iterator[tuple[str, Any]]:
    if _is_single(faces):
        yield _name("the face", faces), faces
    elif isinstance(faces, Iterable) and not isinstance(faces, Mapping | Set):
        for index, item in enumerate(faces):
            yield _name(f"face {index}", item), item
    else:
        raise InvalidFace(
            f"the faces are a {type(faces).__name__}, which has no order of faces. Give an array, "
            "a path, bytes, a PIL image, or a list of these."
        )


def _is_single(item: object) -> bool:
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return isinstance(item, kinds) or hasattr(item, "__array__")


def _name(position: str, item: object) -> str:
    if isinstance(item, str | os.PathLike):
        return f"{position} ({os.fsdecode(item)})"
    return position


def _read_item(item: object, name: str) -> Iterable[NDArray[np.uint8]]:
    if isinstance(item, str | os.PathLike):
        return [_read_path(Path(os.fsdecode(item)), name)]
    if isinstance(item, bytes | bytearray | memoryview):
        return [_read_file(BytesIO(bytes(item)), memoryview(item).nbytes, name)]
    if isinstance(item, Image.Image):
        return [_read_image(item, name)]
    if hasattr(item, "__array__"):
        return _read_array(item, name)
    raise InvalidFace(
        f"{name} is a {type(item).__name__}. Give a uint8 array, a path, bytes or a PIL image."
    )


def _read_array(item: Any, name: str) -> NDArray[np.uint8]:
    """Check an array, or what converts to one; returns `(N, 112, 112, 3)`."""
    try:
        array = np.asarray(item)
    except Exception as error:  # whatever a foreign __array__ raises, e.g. for a GPU tensor
        raise InvalidFace(
            f"{name} is a {type(item).__name__} that does not convert to a numpy array. "
            "Convert it first."
        ) from error
    shape = array.shape
    if array.ndim not in (3, 4) or shape[-3:] != FACE_SHAPE:
        raise InvalidFace(f"{name} is an array of shape {shape}. {_shape_remedy(shape)}.")
    if array.dtype != np.uint8:
        raise InvalidFace(
            f"{name} is an array of {array.dtype}. Give uint8 0..255: the server normalises, so "
            "undo any scaling of the pixels."
        )
    return array.reshape(-1, *FACE_SHAPE)


def _shape_remedy(shape: tuple[int, ...]) -> str:
    if shape in ((_SIDE, _SIDE), (_SIDE, _SIDE, 1)) or shape[1:] == (_SIDE, _SIDE, 1):
        return "It is grey: the model needs the three colour channels of the photo"
    if shape[-3:] == (3, _SIDE, _SIDE):
        return "Its channels come first: transpose to (..., 112, 112, 3)"
    if len(shape) in (3, 4) and shape[-3:-1] == (_SIDE, _SIDE):
        return f"It has {shape[-1]} channels: give the 3 channels R, G, B"
    if len(shape) in (3, 4) and shape[-1] == 3:
        return _ALIGN
    return "Give (112, 112, 3) or (N, 112, 112, 3)"


def _read_path(path: Path, name: str) -> NDArray[np.uint8]:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidFace(f"{name} {problem}. Give the path of an image file.")
    try:
        with path.open("rb") as file:
            return _read_file(file, path.stat().st_size, name)
    except OSError as error:
        raise InvalidFace(f"{name} cannot be read: {error.strerror or error}.") from error


def _read_file(file: BinaryIO, size: int, name: str) -> NDArray[np.uint8]:
    if size > MAX_FILE_BYTES:
        raise InvalidFace(f"{name} holds {size} bytes, too many for an aligned face. {_ALIGN}.")
    try:
        image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidFace(f"{name} is far larger than {_SIDE}x{_SIDE} pixels. {_ALIGN}.") from error
    except Exception as error:  # hostile bytes make Pillow's plugins raise nearly anything
        raise InvalidFace(f"{name} is not a {', '.join(FORMATS[:-1])} or BMP image.") from error
    with image:
        return _read_image(image, name)


def _read_image(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Check a Pillow image by its header, then decode it; returns `(112, 112, 3)`."""
    if image.size != (_SIDE, _SIDE):
        width, height = image.size
        raise InvalidFace(f"{name} is {width}x{height} pixels (width x height). {_ALIGN}.")
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
