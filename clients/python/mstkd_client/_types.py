"""What the client takes and what it answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from mstkd_client._timing import Timing

OneFace: TypeAlias = NDArray[Any] | str | PathLike[str] | bytes | Image.Image
"""One aligned face: uint8 RGB `(112, 112, 3)`, a path, an encoded image, or a PIL image."""
Faces: TypeAlias = OneFace | Iterable[OneFace]
"""One face, uint8 RGB `(N, 112, 112, 3)`, or an iterable of any mix of these."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The threshold that a model carries, and what it stands for.

    Attributes:
        threshold: Pairs with a cosine of at least this are accepted.
        fmr: The false match rate that the threshold was chosen for.
        policy: `worst_group`: no group exceeded `fmr`; `pooled`: all pairs together did not.
        group_fmr: Measured false match rate of each group at the threshold.
        group_fnmr: Measured false non-match rate of each group at the threshold.
        data: What it was measured on.
        pairs: Number of pairs it was measured on.
        probability: Slope and intercept of the logistic map from score to the probability of one
            identity (a prior of one half), or None where it was not fitted.
    """

    threshold: float
    fmr: float
    policy: str
    group_fmr: Mapping[str, float] = field(hash=False)
    group_fnmr: Mapping[str, float] = field(hash=False)
    data: str
    pairs: int
    probability: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the server says about a model.

    Attributes:
        model_name: The model's name on the server.
        model_versions: The versions that the server has ready, for example `("1",)`.
        embedding_dim: Length of one embedding.
        max_batch_size: The most faces that the server takes in one request; 0 says that the model
            sets no limit or takes one face at a time.
        max_request_bytes: The most bytes of pixels that the model's config allows in one request;
            0 says that it sets no limit.
        contract_id: Id of the face contract. Embeddings are comparable only where it is equal.
        contract: The face contract itself: how pixels are normalised, the alignment template, etc.
        server_version: Triton's version, or the runtime's of a `LocalFaceClient`.
        calibration: The model's calibrated decision, or None where it carries none.
    """

    model_name: str
    model_versions: tuple[str, ...]
    embedding_dim: int
    max_batch_size: int
    contract_id: str
    contract: Mapping[str, Any] = field(hash=False)
    server_version: str
    calibration: Calibration | None = None
    max_request_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What a reachable server says about itself.

    Attributes:
        server_live: The server process answers.
        server_ready: The server and the models it must serve are ready.
        model_ready: This client's model is ready for faces.
    """

    server_live: bool
    server_ready: bool
    model_ready: bool


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Embeddings:
    """Embeddings of N faces and the identity of what made them.

    Converts to numpy with `numpy.asarray(embeddings)`. The repr never shows the vectors: an
    embedding is biometric data.

    Attributes:
        vectors: float32 `(N, dim)`, unit length, read-only; row i belongs to the i-th face.
        contract_id: Id of the face contract they were made under.
        model_name: Name of the model that made them.
        model_version: Version of the model that made them, as the server answered.
        timing: Where the time of the call went, where they came from one.

    Raises:
        ValueError: `vectors` is not a float32 array of two dimensions.
    """

    vectors: NDArray[np.float32]
    contract_id: str
    model_name: str
    model_version: str
    timing: Timing | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise ValueError(
                f"vectors must be float32 (N, dim), got {self.vectors.dtype} {self.vectors.shape}"
            )
        frozen = self.vectors.view()
        frozen.flags.writeable = False
        object.__setattr__(self, "vectors", frozen)

    def __len__(self) -> int:
        return len(self.vectors)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        # numpy 1.26 has no copy=None, so the three cases are spelled out.
        array = self.vectors if dtype is None else self.vectors.astype(dtype, copy=False)
        if copy is False and array is not self.vectors:
            raise ValueError(f"embeddings are float32; {array.dtype} needs a copy")
        return array.copy() if copy and array is self.vectors else array

    def __repr__(self) -> str:
        return (
            f"Embeddings(shape={self.vectors.shape}, contract_id={self.contract_id!r}, "
            f"model_name={self.model_name!r}, model_version={self.model_version!r})"
        )
