"""Whatever a caller gives as faces, as uint8 RGB arrays. Nothing is resized or guessed."""

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mstkd_client._decode import ALIGN, SIDE, read_encoded, read_image
from mstkd_client._errors import InvalidFace, InvalidSettings
from mstkd_client._types import Faces, OneFace
from mstkd_client._wire import FACE_SHAPE

NO_FACES: Final = "there are no faces in the input. Give at least one."


def read_faces(faces: Faces, color: str = "rgb") -> Iterator[NDArray[np.uint8]]:
    """Read faces in order; files are decoded only when they are asked for.

    Args:
        faces: One face, uint8 `(N, 112, 112, 3)`, or an iterable of any mix of these.
        color: `rgb` or `bgr`: the order of the channels in arrays. Files and PIL images say
            theirs themselves.

    Yields:
        uint8 RGB `(k, 112, 112, 3)`; arrays are passed on as they are, without a copy.

    Raises:
        InvalidFace: An input is not an aligned RGB face, or there is none.
        InvalidSettings: `color` is neither.
    """
    check_color(color)
    empty = True
    for name, item in _named_items(faces):
        block = read_item(item, name, color)
        empty = empty and not len(block)
        yield block
    if empty:
        raise InvalidFace(NO_FACES)


def check_color(color: str) -> None:
    """Raise InvalidSettings for an order of channels that is neither `rgb` nor `bgr`."""
    if color not in ("rgb", "bgr"):
        raise InvalidSettings(f"color {color!r} must be 'rgb' or 'bgr'")


def read_pair(first: OneFace, second: OneFace, color: str = "rgb") -> NDArray[np.uint8]:
    """Read the two faces of a verification.

    Returns:
        uint8 RGB `(2, 112, 112, 3)`.

    Raises:
        InvalidFace: An input is not exactly one aligned RGB face.
        InvalidSettings: `color` is neither `rgb` nor `bgr`.
    """
    check_color(color)
    return _read_pair(first, second, "", color)


def read_pairs(
    pairs: Iterable[tuple[OneFace, OneFace]], color: str = "rgb"
) -> Iterator[NDArray[np.uint8]]:
    """Read pairs of faces, one pair at a time.

    Yields:
        uint8 RGB `(2, 112, 112, 3)`.

    Raises:
        InvalidFace: An input is not a pair of single aligned RGB faces, or there is none.
        InvalidSettings: `color` is neither `rgb` nor `bgr`.
    """
    check_color(color)
    index = -1
    for index, pair in enumerate(pairs):
        try:
            first, second = pair
        except (TypeError, ValueError) as error:
            raise InvalidFace(f"pair {index} does not hold two faces.") from error
        yield _read_pair(first, second, f" of pair {index}", color)
    if index < 0:
        raise InvalidFace("there are no pairs in the input. Give at least one.")


def _read_pair(first: OneFace, second: OneFace, suffix: str, color: str) -> NDArray[np.uint8]:
    both = []
    for position, item in (("the first face", first), ("the second face", second)):
        name = _name(position + suffix, item)
        faces = read_item(item, name, color)
        if len(faces) != 1:
            raise InvalidFace(f"{name} holds {len(faces)} faces. Give exactly one.")
        both.append(faces)
    return np.concatenate(both)


def _named_items(faces: Faces) -> Iterator[tuple[str, Any]]:
    if _is_single(faces):
        yield _name("the face", faces), faces
    elif isinstance(faces, Iterable) and not isinstance(faces, Mapping | Set):
        for index, item in enumerate(faces):
            yield face_name(index, item), item
    else:
        raise InvalidFace(
            f"the faces are a {type(faces).__name__}, which has no order of faces. Give an array, "
            "a path, bytes, a PIL image, or a list of these."
        )


def face_name(index: int, item: object) -> str:
    """Return how errors call a face of a sequence."""
    return _name(f"face {index}", item)


def _is_single(item: object) -> bool:
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return isinstance(item, kinds) or hasattr(item, "__array__")


def _name(position: str, item: object) -> str:
    if isinstance(item, str | os.PathLike):
        return f"{position} ({os.fsdecode(item)})"
    return position


def read_item(item: object, name: str, color: str) -> NDArray[np.uint8]:
    """Read one item of an input.

    Args:
        item: A face, or uint8 `(k, 112, 112, 3)`.
        name: How errors call it.
        color: `rgb` or `bgr`, for arrays.

    Returns:
        uint8 RGB `(k, 112, 112, 3)`.

    Raises:
        InvalidFace: It is not an aligned RGB face.
    """
    if isinstance(item, str | os.PathLike):
        return _read_path(Path(os.fsdecode(item)), name)[None]
    if isinstance(item, bytes | bytearray | memoryview):
        return read_encoded(BytesIO(bytes(item)), memoryview(item).nbytes, name)[None]
    if isinstance(item, Image.Image):
        return read_image(item, name)[None]
    if hasattr(item, "__array__"):
        array = _read_array(item, name)
        return array[..., ::-1] if color == "bgr" else array
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
    if shape in ((SIDE, SIDE), (SIDE, SIDE, 1)) or shape[1:] == (SIDE, SIDE, 1):
        return "It is grey: the model needs the three colour channels of the photo"
    if shape[-3:] == (3, SIDE, SIDE):
        return "Its channels come first: transpose to (..., 112, 112, 3)"
    if len(shape) in (3, 4) and shape[-3:-1] == (SIDE, SIDE):
        return f"It has {shape[-1]} channels: give the 3 channels R, G, B"
    if len(shape) in (3, 4) and shape[-1] == 3:
        return ALIGN
    return "Give (112, 112, 3) or (N, 112, 112, 3)"


def _read_path(path: Path, name: str) -> NDArray[np.uint8]:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidFace(f"{name} {problem}. Give the path of an image file.")
    try:
        with path.open("rb") as file:
            return read_encoded(file, path.stat().st_size, name)
    except OSError as error:
        raise InvalidFace(f"{name} cannot be read: {error.strerror or error}.") from error
