"""A large array that is filled block by block and survives a kill."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.files import atomic_path

ARRAY_FILE: Final = "array.npy"
_PROGRESS_FILE: Final = "progress.json"


@dataclass
class BlockStore:
    """A memory-mapped array, and how many of its first rows are finished.

    Attributes:
        folder: Where both lie until the array is taken.
        fingerprint: Hash of what the array is made from. What was made from something else is
            thrown away.
        array: The array, writable.
        done: Rows that are finished.
    """

    folder: Path
    fingerprint: str
    array: NDArray[Any]
    done: int

    @classmethod
    def open(cls, folder: Path, fingerprint: str, shape: tuple[int, ...], dtype: str) -> Self:
        """Open the array where a killed run left it, or a new one."""
        path = folder / ARRAY_FILE
        done = _finished_rows(folder / _PROGRESS_FILE, fingerprint)
        if done is not None:
            try:
                array = np.lib.format.open_memmap(path, "r+")
                if array.shape == shape and array.dtype == dtype and done <= len(array):
                    return cls(folder, fingerprint, array, done)
            except (OSError, ValueError):
                pass  # a kill between the two files: the array is begun again
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
        store = cls(folder, fingerprint, array, 0)
        store._note(0)
        return store

    def write(self, rows: NDArray[Any]) -> None:
        """Write the next rows and note them as finished once they are on disk.

        Args:
            rows: `(B, ...)`, what follows the rows that are finished.
        """
        self.array[self.done : self.done + len(rows)] = rows
        self.array.flush()  # type: ignore[attr-defined]
        self._note(self.done + len(rows))

    def take(self, target: Path) -> None:
        """Move the finished array to `target`, on the same file system, and remove the rest."""
        if self.done != len(self.array):
            raise RuntimeError(f"{self.folder}: {self.done} of {len(self.array)} rows are finished")
        del self.array
        (self.folder / ARRAY_FILE).rename(target)
        shutil.rmtree(self.folder)

    def _note(self, done: int) -> None:
        with atomic_path(self.folder / _PROGRESS_FILE) as temporary:
            temporary.write_text(json.dumps({"fingerprint": self.fingerprint, "done": done}))
        self.done = done


def _finished_rows(path: Path, fingerprint: str) -> int | None:
    """Return the number of finished rows, or None where there are none of this fingerprint."""
    try:
        progress = json.loads(path.read_text())
        if progress["fingerprint"] == fingerprint and progress["done"] >= 0:
            return int(progress["done"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
