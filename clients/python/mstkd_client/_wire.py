"""The request and the answer as tritonclient's objects. No I/O happens here."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput

from mstkd_client._errors import ServerFault

INPUT_NAME: Final = "faces"
OUTPUT_NAME: Final = "embedding"
FACE_SHAPE: Final = (112, 112, 3)


class Request(NamedTuple):
    """The tensors of one inference request.

    Attributes:
        inputs: One `InferInput`: UINT8 `(n, 112, 112, 3)` as raw bytes.
        outputs: One `InferRequestedOutput`: the embedding and nothing else.
        face_count: n.
    """

    inputs: list[Any]
    outputs: list[Any]
    face_count: int


class Answer(NamedTuple):
    """The server's answer to one request.

    Attributes:
        vectors: float32 `(n, dim)`, finite; a view of the received bytes.
        model_version: The version that answered.
    """

    vectors: NDArray[np.float32]
    model_version: str


def encode(faces: NDArray[np.uint8]) -> Request:
    """Make the request of one chunk.

    Args:
        faces: uint8 RGB `(n, 112, 112, 3)`.
    """
    tensor = InferInput(INPUT_NAME, list(faces.shape), "UINT8")
    tensor.set_data_from_numpy(faces)
    return Request([tensor], [InferRequestedOutput(OUTPUT_NAME)], len(faces))


def decode(result: Any, request: Request, embedding_dim: int) -> Answer:
    """Read and check the answer to `request`.

    Args:
        result: tritonclient's `InferResult`.
        request: The request that it answers.
        embedding_dim: Length of one embedding.

    Raises:
        ServerFault: The answer has no embedding, another shape or type than announced, or values
            that are not finite.
    """
    described = result.get_output(OUTPUT_NAME)
    if described is None:
        raise ServerFault(f"the server's answer has no output {OUTPUT_NAME!r}.")
    expected = (request.face_count, embedding_dim)
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
    if not np.isfinite(vectors).all():
        raise ServerFault(
            "the server answered values that are not finite: its model is broken. "
            "Check it with `mstkd-serve doctor`."
        )
    return Answer(vectors, str(result.get_response().model_version))
