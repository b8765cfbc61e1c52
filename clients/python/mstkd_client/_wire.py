"""The request and the answer in the bytes of the Open Inference Protocol. No I/O happens here.

The messages are tritonclient's. A request's pixels are its last field, and protobuf allows a
message's fields to be joined as bytes: so they are copied once, where a message would copy them
twice more.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as protocol

from mstkd_client._errors import ServerFault

INPUT_NAME: Final = "faces"
OUTPUT_NAME: Final = "embedding"
FACE_SHAPE: Final = (112, 112, 3)
FACE_BYTES: Final = 112 * 112 * 3
_MICROSECONDS: Final = 1_000_000
_RAW_INPUT_TAG: Final = bytes([7 << 3 | 2])
"""Protobuf's key of `ModelInferRequest.raw_input_contents`: field 7, a length and bytes."""


class Region(NamedTuple):
    """Where in shared memory a request's pixels lie.

    Attributes:
        name: Name under which the server knows the memory.
        offset: First byte.
    """

    name: str
    offset: int


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


def encode(
    model: tuple[str, str],
    faces: NDArray[np.uint8],
    queue_timeout: float,
    region: Region | None = None,
) -> bytes:
    """Return a `ModelInferRequest` as bytes.

    Args:
        model: Name and version; the version "" leaves it to the server.
        faces: uint8 RGB `(n, 112, 112, 3)`.
        queue_timeout: Seconds that the request may wait in the server's queue.
        region: Where the faces lie, if they are in memory that the server shares.
    """
    name, version = model
    request = protocol.ModelInferRequest(model_name=name, model_version=version)
    request.parameters["timeout"].int64_param = max(1, round(queue_timeout * _MICROSECONDS))
    tensor = request.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=faces.shape)
    request.outputs.add(name=OUTPUT_NAME)
    if region is not None:
        tensor.parameters["shared_memory_region"].string_param = region.name
        tensor.parameters["shared_memory_byte_size"].int64_param = faces.nbytes
        tensor.parameters["shared_memory_offset"].int64_param = region.offset
        return bytes(request.SerializeToString())
    pixels = np.ascontiguousarray(faces).reshape(-1).data
    head = request.SerializeToString()
    return b"".join((head, _RAW_INPUT_TAG, _varint(faces.nbytes), pixels))


def _varint(number: int) -> bytes:
    """Return protobuf's encoding of a length: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode(response: Any, face_count: int, embedding_dim: int) -> Answer:
    """Read and check the answer to a request.

    Args:
        response: A `ModelInferResponse`.
        face_count: Faces of the request that it answers.
        embedding_dim: Length of one embedding.

    Raises:
        ServerFault: The answer has no embedding, another shape or type than announced, or values
            that are not finite.
    """
    names = [tensor.name for tensor in response.outputs]
    if OUTPUT_NAME not in names:
        raise ServerFault(f"the server's answer has no output {OUTPUT_NAME!r}.")
    index = names.index(OUTPUT_NAME)
    described = response.outputs[index]
    expected = (face_count, embedding_dim)
    shape = tuple(described.shape)
    if described.datatype != "FP32" or shape != expected:
        raise ServerFault(
            f"the server answered {described.datatype} {shape} where its own metadata promise "
            f"FP32 {expected}."
        )
    contents = response.raw_output_contents
    raw = contents[index] if index < len(contents) else b""
    if len(raw) != 4 * face_count * embedding_dim:
        raise ServerFault(
            f"the server's answer does not hold the {expected} values that it announces."
        )
    vectors = np.frombuffer(raw, np.dtype("<f4")).reshape(expected)
    check_finite(vectors)
    return Answer(vectors, str(response.model_version))


def check_finite(vectors: NDArray[np.float32]) -> None:
    """Raise ServerFault for embeddings with values that are not finite."""
    if not np.isfinite(vectors).all():
        raise ServerFault(
            "the model answered values that are not finite: it is broken. "
            "Check it with `mstkd-serve doctor`."
        )
