"""InsightFace's verification files, `lfw.bin` and the like, without trusting their pickle.

Such a file is a pickle of two values: encoded images, two a pair, and for each pair whether it
shows one person. Reading runs no code of the file: the only names that it may use are those of
NumPy arrays, scalars and dtypes and of bytes, and each is replaced by a stand-in of ours.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.files import atomic_path

_CORES: Final = ("numpy.core", "numpy._core")  # of NumPy 1 and 2
_TYPES: Final = {"u1": np.uint8, "b1": np.bool_}


def read_verification_bin(path: Path) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Read a verification file.

    Returns:
        The encoded images, those of pair i at 2 i and 2 i + 1; and bool `(pairs,)`, True where
        both show one person.

    Raises:
        DataError: The file is missing, damaged, not such a file, or its pickle wants more than
            images and truth values.
    """
    try:
        with path.open("rb") as stream:
            images, same = _Reader(stream, encoding="bytes").load()
        encoded = [_as_bytes(image) for image in _as_list(images)]
        flags = np.array([_as_bool(flag) for flag in _as_list(same)], np.bool_)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Give an InsightFace verification file.") from None
    except _ForbiddenError as error:
        raise DataError(
            f"{path}: its pickle asks for {error}, which a verification file has no need of. "
            "Nothing of it was run; do not trust it."
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(
            f"{path}: not an InsightFace verification file, or damaged "
            f"({type(error).__name__}: {error}). Copy it again."
        ) from error
    if not len(flags) or len(encoded) != 2 * len(flags):
        raise DataError(
            f"{path}: {len(encoded)} images for {len(flags)} pairs, needed are two a pair. "
            "Copy it again."
        )
    return encoded, flags


def write_verification_bin(path: Path, images: Sequence[bytes], same: Sequence[bool]) -> None:
    """Write a verification file, as InsightFace's tools read it.

    Args:
        path: The file to write.
        images: Encoded images, two a pair.
        same: Whether each pair shows one person.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(pickle.dumps((list(images), [bool(flag) for flag in same])))


class _ForbiddenError(Exception):
    """The pickle names something that is not allowed."""


class _Dtype:
    """Stands in for `numpy.dtype`; only bytes and truth values are allowed."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if text not in _TYPES:
            raise _ForbiddenError(f"an array of {text!r}")
        self.type = _TYPES[text]

    def __setstate__(self, _: object) -> None:
        """Byte order and the like mean nothing for single bytes."""


class _Array:
    """Stands in for `numpy.ndarray` while it is unpickled; its shape means nothing here."""

    values: NDArray[Any]

    def __setstate__(self, state: tuple[object, object, _Dtype, object, bytes]) -> None:
        _, _, dtype, _, data = state
        self.values = np.frombuffer(data, dtype.type)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: bytes, dtype: _Dtype, *_: object) -> _Array:
    array = _Array()
    array.values = np.frombuffer(data, dtype.type)
    return array


def _scalar(dtype: _Dtype, data: bytes) -> bool:
    return bool(np.frombuffer(data, dtype.type)[0])


def _encode(text: str, codec: str) -> bytes:
    if codec not in ("latin1", "latin-1", b"latin1"):
        raise _ForbiddenError(f"the codec {codec!r}")
    return text.encode("latin-1")


class _Reader(pickle.Unpickler):
    """Knows arrays and bytes, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return our stand-in.

        Raises:
            _ForbiddenError: There is none for this name.
        """
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): _encode,
            ("builtins", "bytes"): bytes,
            ("__builtin__", "bytes"): bytes,
        }
        for core in _CORES:
            known[f"{core}.multiarray", "_reconstruct"] = _reconstruct
            known[f"{core}.multiarray", "scalar"] = _scalar
            known[f"{core}.numeric", "_frombuffer"] = _from_buffer
        if (module, name) not in known:
            raise _ForbiddenError(f"{module}.{name}")
        return known[module, name]


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, _Array):
        return list(value.values)
    if isinstance(value, list | tuple):
        return list(value)
    raise TypeError(f"a {type(value).__name__} where a list is needed")


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, _Array) and value.values.dtype == np.uint8:
        return value.values.tobytes()
    raise TypeError(f"a {type(value).__name__} where an image is needed")


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"a {type(value).__name__} where a truth value is needed")
