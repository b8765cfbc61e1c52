"""Write files that are whole or absent, for their owner's eyes only."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from mstkd_client.bulk._errors import OutputError

TEMPORARY_SUFFIX: Final = ".tmp"


@contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """Yield a new file, mode 0600, that takes the place of `target` when the block succeeds.

    Several processes may write one target at once: each has its own temporary file, and the
    last rename counts.

    Args:
        target: The file to write; its folder exists.

    Yields:
        The temporary file, open for writing bytes. It is removed on any error.

    Raises:
        OutputError: The file system refused: no space, no permission, no such folder.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    with writing(target):
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names `target`.

    Raises:
        OutputError: The file system refused.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}. Make room or give the "
            "permission, then start the same command again: finished parts are kept."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the file system can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems do not sync folders
        pass
    finally:
        os.close(handle)
