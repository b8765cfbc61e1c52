"""Files in, faces out: decoded, or found in photos, a bounded number of files ahead."""

import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import InvalidFace, MissingExtra
from mstkd_client._images import read_faces
from mstkd_client.bulk._errors import BulkError, SourceError

NO_FACE: Final = "no face found"
_MACHINE_ERRORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NOT_UTF8: Final = "the name is not UTF-8, which Parquet requires; rename the file"

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class FoundFace(Protocol):
    """A face that a detector found: what `mstkd_client.align.AlignedFace` offers."""

    @property
    def face(self) -> NDArray[np.uint8]:
        """uint8 RGB `(112, 112, 3)`, aligned."""

    @property
    def bbox(self) -> Any:
        """Four numbers, xyxy in pixels of the photo."""

    @property
    def score(self) -> float:
        """How sure the detector is, 0 to 1."""


Finder: TypeAlias = Callable[[Path], Sequence[FoundFace]]
Detector: TypeAlias = str | os.PathLike[str] | Finder
"""The path of a YuNet ONNX file, or a function from a photo's path to its faces that threads may
share (and, for the engine `ray`, that can be pickled)."""


class Face(NamedTuple):
    """A face to embed.

    Attributes:
        pixels: uint8 RGB `(112, 112, 3)`.
        score: Of the detector, or None.
        bbox: float32 `(4,)` xyxy, or None.
    """

    pixels: NDArray[np.uint8]
    score: float | None
    bbox: NDArray[np.float32] | None


class Reader:
    """Reads the files of a job; threads may share one.

    Args:
        base: The folder that paths are relative to.
        detector: None where each file is one aligned face.

    Raises:
        MissingExtra: What the detector needs is not installed.
        BulkError: The detector's file cannot be used.
    """

    def __init__(self, base: Path, detector: Detector | None) -> None:
        self._base = base
        self._find = None if detector is None else _finder(detector)

    def __call__(self, path: str) -> list[Face] | str:
        """Read a file.

        Args:
            path: Relative to `base`, or absolute.

        Returns:
            Its faces, or why there is none.

        Raises:
            BulkError: This process, not the file, is at fault: too many files are open.
            MemoryError: There is not enough memory.
        """
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            return _NOT_UTF8
        file = self._base / path
        try:
            return self._aligned(file) if self._find is None else self._faces(file, self._find)
        except (InvalidFace, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRORS:
                raise BulkError(
                    f"this machine can open no further file ({cause.strerror}). Raise its limits, "
                    "then start the same command again: finished parts are kept."
                ) from error
            if isinstance(error, OSError):
                return f"cannot be read: {error.strerror or error}"
            return str(error).removeprefix(f"the face ({file}) ").removeprefix(f"the photo {file} ")

    def check_source(self) -> None:
        """Make sure that files failed on their own, not because their folder went away.

        Raises:
            SourceError: The folder is gone.
        """
        if not self._base.is_dir():
            raise SourceError(
                f"{self._base} is no longer there. Bring it back, then start the same command "
                "again: finished parts are kept."
            )

    @staticmethod
    def _aligned(file: Path) -> list[Face]:
        return [Face(face, None, None) for face in read_faces(file)]

    @staticmethod
    def _faces(file: Path, find: Finder) -> list[Face] | str:
        if not file.is_file():
            return "is a folder" if file.is_dir() else "does not exist"
        try:
            found = find(file)
        except (InvalidFace, OSError, MemoryError, MissingExtra):
            raise
        except Exception as error:  # hostile photos make OpenCV raise nearly anything
            return f"the detector failed: {type(error).__name__}"
        faces = [
            Face(each.face, float(each.score), np.asarray(each.bbox, np.float32)) for each in found
        ]
        return faces or NO_FACE


def identify_detector(detector: Detector | None) -> str:
    """Name a detector so that a resumed job can tell whether it is the same; "" for none.

    Raises:
        BulkError: The detector's file cannot be read.
    """
    if detector is None:
        return ""
    if isinstance(detector, str | os.PathLike):
        try:
            with open(detector, "rb") as file:
                return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError as error:
            raise BulkError(
                f"the detector {os.fspath(detector)} cannot be read: {error.strerror}. Give a "
                "YuNet ONNX file."
            ) from error
    kind = detector if hasattr(detector, "__qualname__") else type(detector)
    return f"{kind.__module__}.{kind.__qualname__}"


def ahead(
    pool: Executor, work: Callable[[Item], Outcome], items: Iterable[Item], window: int
) -> Iterator[tuple[Item, Outcome]]:
    """Do work in a pool, in order, at most `window` items ahead of who takes the outcomes."""
    waiting: deque[tuple[Item, Future[Outcome]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) >= window:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _finder(detector: Detector) -> Finder:
    if not isinstance(detector, str | os.PathLike):
        return detector
    from mstkd_client.align import YuNetDetector, detect_and_align

    path = os.fspath(detector)
    own = threading.local()  # a YuNet network keeps the photo it works on: one for each thread
    own.network = YuNetDetector(path)

    def find(photo: Path) -> Sequence[FoundFace]:
        if not hasattr(own, "network"):
            own.network = YuNetDetector(path)
        found: Sequence[FoundFace] = detect_and_align(photo, own.network)
        return found

    return find
