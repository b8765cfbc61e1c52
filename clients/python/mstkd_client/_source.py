"""Where the asyncio client gets its next request from, without holding up the event loop."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import InvalidFace
from mstkd_client._images import NO_FACES, check_color, face_name, read_faces, read_item
from mstkd_client._types import Faces, OneFace
from mstkd_client._wire import Chunks, chunks

Blocks = Iterable[NDArray[np.uint8]] | AsyncIterable[NDArray[np.uint8]]
"""Blocks of faces, uint8 RGB `(k, 112, 112, 3)` each."""


def read(faces: Faces | AsyncIterable[OneFace], color: str) -> Blocks:
    """Read faces as `read_faces` does; an async iterable gives them one after another."""
    check_color(color)
    if isinstance(faces, AsyncIterable):
        return _read_async(faces, color)
    return read_faces(faces, color)


async def _read_async(
    faces: AsyncIterable[OneFace], color: str
) -> AsyncIterator[NDArray[np.uint8]]:
    index = -1
    async for item in faces:
        index += 1
        name = face_name(index, item)
        if isinstance(item, np.ndarray):
            yield read_item(item, name, color)
        else:
            yield await asyncio.to_thread(read_item, item, name, color)
    if index < 0:
        raise InvalidFace(NO_FACES)


class Requests:
    """The requests of one call, one at a time.

    Args:
        blocks: The faces. What is no async iterable is read in a thread, because files and
            generators may block; only one thread at a time reads.
        rows: Faces of one request.
    """

    def __init__(self, blocks: Blocks, rows: int) -> None:
        self._coming: AsyncIterator[NDArray[np.uint8]] | None = None
        self._ready: Iterator[NDArray[np.uint8]]
        if isinstance(blocks, AsyncIterable):
            self._coming = _regroup(blocks, rows)
        else:
            self._ready = chunks(blocks, rows)

    async def next(self) -> NDArray[np.uint8] | None:
        """Return the faces of the next request, or None where there are no more."""
        if self._coming is not None:
            return await anext(self._coming, None)
        return await asyncio.to_thread(next, self._ready, None)


async def _regroup(
    blocks: AsyncIterable[NDArray[np.uint8]], rows: int
) -> AsyncIterator[NDArray[np.uint8]]:
    regrouped = Chunks(rows)
    async for block in blocks:
        for chunk in regrouped.push(block):
            yield chunk
    for chunk in regrouped.rest():
        yield chunk
