"""Which files a job covers: the images under a folder, or the paths in a text file.

A listing may be larger than memory: it is sorted in runs on disk and read part by part.
"""

import hashlib
import heapq
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO, Final

from mstkd_client.bulk._errors import SourceError

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
RUN_LENGTH: Final = 100_000
"""Paths that are sorted in memory at once."""
_MAX_LINE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of images or a list of paths, found to be there.

    Attributes:
        path: The folder or the list, absolute.
        digest: SHA-256 of the list; "" for a folder.
    """

    path: Path
    digest: str

    @property
    def base(self) -> Path:
        """The folder that the paths are relative to."""
        return self.path.parent if self.digest else self.path

    def paths(self) -> Iterator[str]:
        """Yield the paths, unsorted, relative to `base` or absolute as the list gives them.

        Names that are not UTF-8 carry surrogates, as `os.fsdecode` makes them.

        Raises:
            SourceError: The folder or the list cannot be read.
        """
        return _read_list(self.path) if self.digest else _walk(self.path)


def open_source(source: str | os.PathLike[str]) -> Source:
    """Find out what a source is.

    Args:
        source: A folder, searched with its subfolders for JPEG, PNG, WEBP and BMP files by their
            suffix, hidden ones left out; or a UTF-8 text file with a path a line, relative to
            the folder of that file.

    Raises:
        SourceError: It is neither.
    """
    path = Path(os.path.abspath(source))
    if path.is_dir():
        return Source(path, "")
    if not path.is_file():
        raise SourceError(
            f"{path} does not exist. Give a folder, or a text file with a path a line."
        )
    if path.suffix.lower() in SUFFIXES:
        raise SourceError(
            f"{path} is an image. Give its folder, or a text file with a path a line."
        )
    try:
        with path.open("rb") as file:
            return Source(path, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise SourceError(f"the list {path} cannot be read: {error.strerror}.") from error


def write_listing(
    source: Source, file: BinaryIO, part_size: int, scratch: Path
) -> tuple[int, list[int]]:
    """Write a source's paths, sorted and each once, as a JSON string a line.

    Args:
        source: From `open_source`.
        file: Where to write.
        part_size: Paths of a part, 1 or more.
        scratch: A folder for the temporary files of the sort.

    Returns:
        The number of paths, and the offset in `file` at which each part begins.

    Raises:
        SourceError: The source cannot be read, or holds no image.
    """
    count, offset = 0, 0
    offsets: list[int] = []
    for path in _sorted_unique(source.paths(), scratch):
        if count % part_size == 0:
            offsets.append(offset)
        offset += file.write(json.dumps(path).encode("ascii") + b"\n")
        count += 1
    if not count:
        what = "names no file" if source.digest else f"holds no file {' '.join(SUFFIXES)}"
        raise SourceError(f"{source.path} {what}. Give another folder or list.")
    return count, offsets


def read_listing(listing: Path, offset: int, count: int) -> list[str]:
    """Read up to `count` paths of a listing from a part's offset on."""
    with listing.open("rb") as file:
        file.seek(offset)
        return [json.loads(line) for line in islice(file, count)]


def _walk(root: Path) -> Iterator[str]:
    """Yield the image files under `root`, and those subfolders that cannot be listed.

    Links to folders are followed, except back to a folder that the path already leads through.
    """
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(root),))]
    while pending:
        folder, trail = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if identity := _folder_identity(entry):
                        if identity not in trail:
                            pending.append((path, (*trail, identity)))
                    elif entry.name.lower().endswith(SUFFIXES):
                        yield path
        except OSError as error:
            if not folder:
                raise SourceError(f"{root} cannot be listed: {error.strerror}.") from error
            yield folder  # reading it will fail, so the report names it


def _folder_identity(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        return _identity(entry) if entry.is_dir() else None
    except OSError:  # a link to itself, or it vanished just now
        return None


def _identity(folder: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _read_list(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if b"\0" in line or len(line) == _MAX_LINE:
                    raise SourceError(
                        f"line {number} of {path} is no path. Give a UTF-8 text file with a path "
                        "a line."
                    )
                if entry := line.rstrip(b"\r\n"):
                    yield entry.decode("utf-8", "surrogateescape")
    except OSError as error:
        raise SourceError(f"the list {path} cannot be read: {error.strerror}.") from error


def _sorted_unique(paths: Iterator[str], scratch: Path) -> Iterator[str]:
    """Sort without holding more than `RUN_LENGTH` paths, and drop repetitions."""
    with ExitStack() as runs:
        sorted_runs: list[Iterable[str]] = []
        while chunk := sorted(islice(paths, RUN_LENGTH)):
            if len(chunk) < RUN_LENGTH:
                sorted_runs.append(chunk)
                break
            file = runs.enter_context(tempfile.TemporaryFile(dir=scratch))
            file.writelines(json.dumps(path).encode("ascii") + b"\n" for path in chunk)
            file.seek(0)
            sorted_runs.append(_run(file))
        last = None
        for path in heapq.merge(*sorted_runs):
            if path != last:
                yield path
            last = path


def _run(file: IO[bytes]) -> Iterator[str]:
    return (json.loads(line) for line in file)
