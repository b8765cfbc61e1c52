"""Pixels passed to a server on this machine through system shared memory."""

import mmap
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mstkd_client._wire import FACE_BYTES, Region

_FOLDER: Final = Path("/dev/shm")


class SharedPixels:
    """Slots of memory that the server maps as well, one for each request in flight.

    The memory loses its name as soon as the server has it, so that nothing stays behind however
    this process ends. Threads may share it.

    Args:
        slots: Number of requests that it holds at once.
        rows: Most faces of one request.

    Raises:
        OSError: This system has no such memory, or not enough.
    """

    def __init__(self, slots: int, rows: int) -> None:
        self.name = f"mstkd-{secrets.token_hex(8)}"
        self.key = f"/{self.name}"
        self._slot_bytes = rows * FACE_BYTES
        self.byte_size = slots * self._slot_bytes
        self._free = list(range(slots))
        self._lock = threading.Lock()
        path = _FOLDER / self.name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.byte_size)
            self._memory = mmap.mmap(descriptor, self.byte_size)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def forget_name(self) -> None:
        """Remove the memory's name; it lives on where it is mapped."""
        with suppress(FileNotFoundError):
            os.unlink(_FOLDER / self.name)

    def place(self, faces: NDArray[np.uint8]) -> tuple[Region, Callable[[], None]] | None:
        """Copy the faces of a request into a free slot.

        Args:
            faces: uint8 `(n, 112, 112, 3)`.

        Returns:
            The slot, and what frees it; None where no slot
            is free or large enough. A server that still reads a freed slot answers a request that
            nobody waits for.
        """
        with self._lock:
            if not self._free or faces.nbytes > self._slot_bytes:
                return None
            slot = self._free.pop()
        start = slot * self._slot_bytes
        np.ndarray(faces.shape, np.uint8, self._memory, start)[...] = faces
        return Region(self.name, start), partial(self._free.append, slot)
