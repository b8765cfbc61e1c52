"""The request and the answer as tritonclient's objects. No I/O happens here."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput

from mstkd_client._errors import ServerFault

INPUT_NAME: Final = "faces"
OUTPUT_NAME: Final = "embedding"
FACE_SHAPE: Final = (112, 112, 3)
FACE_BYTES: Final = 112 * 112 * 3
OUTPUTS: Final = [InferRequestedOutput(OUTPUT_NAME)]


class Answer(NamedTuple):
    """The server's answer to one request.

    Attributes:
        vectors: float32 `(n, dim)`, finite; a view of the received bytes.
        model_version: The version that answered.
    """

    vectors: NDArray[np.float32]
    model_version: str


class Chunks:
    """Regroups blocks of faces into chunks of equal size.

    Args:
        rows: Faces of one chunk, at least 1.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._parts: list[NDArray[np.uint8]] = []
        self._count = 0

    def push(self, block: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """Take a block, uint8 `(k, 112, 112, 3)`; yield the chunks that are complete.

        A chunk is a view where one block holds all of it.
        """
        start = 0
        while start < len(block):
            part = block[start : start + self._rows - self._count]
            self._parts.append(part)
            start += len(part)
            self._count += len(part)
            if self._count == self._rows:
                yield from self.rest()

    def rest(self) -> Iterator[NDArray[np.uint8]]:
        """Yield what is left, if anything is."""
        parts, self._parts, self._count = self._parts, [], 0
        if parts:
            yield parts[0] if len(parts) == 1 else np.concatenate(parts)


def chunks(blocks: Iterable[NDArray[np.uint8]], rows: int) -> Iterator[NDArray[np.uint8]]:
    """Regroup blocks `(k, 112, 112, 3)` into chunks of `rows`; only the last may be smaller."""
    regrouped = Chunks(rows)
    for block in blocks:
        yield from regrouped.push(block)
    yield from regrouped.rest()


def encode(faces: NDArray[np.uint8]) -> list[Any]:
    """Return the request's tensors: one `InferInput` with the pixels as raw bytes.

    Args:
        faces: uint8 RGB `(n, 112, 112, 3)`.
    """
    tensor = InferInput(INPUT_NAME, list(faces.shape), "UINT8")
    tensor.set_data_from_numpy(faces)
    return [tensor]


def decode(result: Any, face_count: int, embedding_dim: int) -> Answer:
    """Read and check the answer to a request.

    Args:
        result: tritonclient's `InferResult`.
        face_count: Faces of the request that it answers.
        embedding_dim: Length of one embedding.

    Raises:
        ServerFault: The answer has no embedding, another shape or type than announced, or values
            that are not finite.
    """
    described = result.get_output(OUTPUT_NAME)
    if described is None:
        raise ServerFault(f"the server's answer has no output {OUTPUT_NAME!r}.")
    expected = (face_count, embedding_dim)
    shape = tuple(described.shape)
    if described.datatype != "FP32" or shape != expected:
        raise ServerFault(
            f"the server answered {described.datatype} {shape} where its own metadata promise "
            f"FP32 {expected}."
        )
    try:
        vectors: NDArray[np.float32] = result.as_numpy(OUTPUT_NAME)
    except ValueError as error:
        raise ServerFault(
            f"the server's answer does not hold the {expected} values that it announces."
        ) from error
    check_finite(vectors)
    return Answer(vectors, str(result.get_response().model_version))


def check_finite(vectors: NDArray[np.float32]) -> None:
    """Raise ServerFault for embeddings with values that are not finite."""
    if not np.isfinite(vectors).all():
        raise ServerFault(
            "the model answered values that are not finite: it is broken. "
            "Check it with `mstkd-serve doctor`."
        )
