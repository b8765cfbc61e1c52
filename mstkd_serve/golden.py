"""Golden faces: a few rendered faces whose embeddings are known from the model's export on.

The faces ship with this package (`data/golden_faces.npz`); a model carries the embeddings that
its source file gave for them. The export gate, Triton's warm-up and `mstkd-serve doctor` use both.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import ContractError

GOLDEN_KEY: Final = "mstkd.golden"
"""Key of the golden embeddings in ONNX metadata and in the `parameters` of a Triton config."""
FULL_PRECISION: Final = "fp32"


@cache
def golden_faces() -> NDArray[np.uint8]:
    """Return the rendered golden faces, uint8 RGB `(4, 112, 112, 3)`, read-only."""
    with (
        files("mstkd_serve").joinpath("data/golden_faces.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        faces: NDArray[np.uint8] = archive["faces"]
    faces.setflags(write=False)
    return faces


def faces_digest() -> str:
    """Return the SHA-256 of the golden faces' pixels, in hex."""
    return hashlib.sha256(golden_faces().tobytes()).hexdigest()


@dataclass(frozen=True, repr=False)
class GoldenRecord:
    """What a model's source file answered for the golden faces.

    Attributes:
        faces_sha256: Digest of the faces' pixels, so that a change of the faces is noticed.
        embeddings: float32 `(4, dim)`, unit norm.
        precision: What the graph is written in: `fp32`, or that of a reduced copy, whose
            answers differ more from runtime to runtime.
    """

    faces_sha256: str
    embeddings: NDArray[np.float32]
    precision: str = FULL_PRECISION

    @classmethod
    def of(cls, embeddings: NDArray[np.float32], precision: str = FULL_PRECISION) -> Self:
        """Record the embeddings of this package's golden faces, float32 `(4, dim)`."""
        return cls(faces_digest(), embeddings, precision)

    def metadata(self) -> dict[str, str]:
        """Return the record as string pairs for ONNX metadata or a Triton config."""
        raw = np.ascontiguousarray(self.embeddings, "<f4").tobytes()
        record = {
            "faces_sha256": self.faces_sha256,
            "embeddings": base64.b64encode(raw).decode("ascii"),
        }
        if self.precision != FULL_PRECISION:
            record["precision"] = self.precision
        return {GOLDEN_KEY: json.dumps(record, sort_keys=True, separators=(",", ":"))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: str) -> Self:
        """Read a record back.

        Args:
            metadata: ONNX metadata or the parameters of a Triton config.
            source: Name of where they came from, for error messages.

        Raises:
            ContractError: There is no record, it is malformed, or it belongs to other faces.
        """
        text = metadata.get(GOLDEN_KEY)
        if text is None:
            raise ContractError(f"{source}: it carries no golden embeddings. Export it again.")
        try:
            record = json.loads(text)
            digest = str(record["faces_sha256"])
            precision = str(record.get("precision", FULL_PRECISION))
            raw = base64.b64decode(record["embeddings"], validate=True)
            embeddings = np.frombuffer(raw, "<f4").reshape(len(golden_faces()), -1)
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise ContractError(
                f"{source}: its golden embeddings are malformed. Export it again."
            ) from error
        if digest != faces_digest():
            raise ContractError(
                f"{source}: its golden embeddings belong to the golden faces of another release "
                "of mstkd-serve. Export it again, or check it with that release."
            )
        return cls(digest, embeddings, precision)
