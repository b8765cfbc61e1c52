"""The face contract: the values that make two embeddings comparable.

A contract says how an aligned face becomes network input and what the embedding that comes out
is. It is the only place that knows how pixels are normalised: `graph.py` bakes its values into
the ONNX file, training reads the same values, and they travel as JSON in the ONNX metadata and in
the Triton config. Two embeddings may be compared only if the ids of their contracts are equal.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mstkd_serve.errors import ContractError

CONTRACT_KEY: Final = "mstkd.contract"
"""Key of the contract's JSON in ONNX metadata and in the `parameters` of a Triton config."""
CONTRACT_ID_KEY: Final = "mstkd.contract_id"
"""Key of the contract's id, beside `CONTRACT_KEY`."""

Rgb = tuple[float, float, float]


class Preprocessing(BaseModel):
    """How an aligned face becomes network input, and how the network's output is finished.

    Known before the network is: this is what a user states with `--contract`. All means and
    standard deviations are on the 0 to 255 scale; network input is `(pixel - mean) / std`.

    Attributes:
        height: Rows of an aligned face, pixels.
        width: Columns of an aligned face, pixels.
        channel_order: Order of the colour channels that the network was trained with.
        mean: Per-channel mean in R, G, B order, 0 to 255.
        std: Per-channel divisor in R, G, B order, above 0, on the 0 to 255 scale. A network that
            normalises inside takes mean 0 and std 1.
        layout: Memory layout of the network's input.
        dtype: Type of one pixel as it travels to the server.
        normalisation: What is done to the network's output: `l2` scales it to unit length.
        alignment: Name of the landmark template that faces are aligned to. `arcface-112` is the
            five-point template of ArcFace (Deng et al., CVPR 2019) for 112x112 crops.
        flip: Whether an embedding is the sum of the face's and its mirror image's, before
            normalisation (the protocol of LFW and RFW evaluations).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    height: Literal[112] = 112
    width: Literal[112] = 112
    channel_order: Literal["RGB"] = "RGB"
    mean: Rgb = (127.5, 127.5, 127.5)
    std: Rgb = (127.5, 127.5, 127.5)
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["uint8"] = "uint8"
    normalisation: Literal["l2"] = "l2"
    alignment: str = Field(default="arcface-112", min_length=1, max_length=100)
    flip: bool = False

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if not all(0 <= value <= 255 for value in self.mean):
            raise ValueError(f"mean must lie in 0 to 255, got {list(self.mean)}")
        if not all(0 < value <= 255 for value in self.std):
            raise ValueError(f"std must lie above 0 and up to 255, got {list(self.std)}")
        normalises_itself = set(self.mean) == {0.0} and set(self.std) == {1.0}
        if max(self.std) <= 1 and not normalises_itself:
            raise ValueError(
                f"std {list(self.std)} looks like the 0 to 1 scale: multiply mean and std by 255"
            )
        return self

    def network_input(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalise aligned faces in numpy, the reference for what the served graph bakes in.

        Args:
            faces: uint8 RGB `(N, 112, 112, 3)`.

        Returns:
            float32 `(N, 3, 112, 112)`, C-contiguous.
        """
        mean = np.asarray(self.mean, np.float32)
        std = np.asarray(self.std, np.float32)
        normalised = (faces.astype(np.float32) - mean) / std
        return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


class FaceContract(Preprocessing):
    """A `Preprocessing` completed by what the network makes of it.

    Attributes:
        embedding_dim: Length of one embedding.
        embedding_space: Name of the space that embeddings live in. Two networks with equal
            pre-processing still give incomparable embeddings, so the space is part of the id. By
            default it is a hash of the network's weights; a student distilled into its teachers'
            space, or a reduced-precision copy, carries the space of its origin.
    """

    embedding_dim: int = Field(ge=1, le=65536)
    embedding_space: str = Field(min_length=1, max_length=200)

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def preprocessing(self) -> Preprocessing:
        """The part of the contract that does not depend on the network."""
        return Preprocessing.model_validate(
            self.model_dump(include=set(Preprocessing.model_fields))
        )

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces, numbers as Python prints them."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def metadata(self) -> dict[str, str]:
        """Return the contract as string pairs for ONNX metadata or a Triton config."""
        return {CONTRACT_KEY: self.to_json(), CONTRACT_ID_KEY: self.id}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: str) -> Self | None:
        """Read a contract back from string pairs.

        Args:
            metadata: ONNX metadata or the parameters of a Triton config.
            source: Name of where they came from, for error messages.

        Returns:
            The contract, or None where the pairs hold none.

        Raises:
            ContractError: The JSON is malformed, or its values do not hash to the stored id.
        """
        text = metadata.get(CONTRACT_KEY)
        if text is None:
            return None
        try:
            contract = cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(
                f"{source}: its contract is malformed ({_first_problem(error)}). "
                "Export the model again."
            ) from error
        stored = metadata.get(CONTRACT_ID_KEY)
        if stored != contract.id:
            raise ContractError(
                f"{source}: its contract id {stored!r} does not belong to its contract values "
                f"(they hash to {contract.id!r}): somebody edited one of them. "
                "Export the model again."
            )
        return contract


NAMED_CONTRACTS: Final[Mapping[str, Preprocessing]] = {"arcface": Preprocessing()}
"""Pre-processing conventions known by name. `arcface`: RGB, (x - 127.5) / 127.5."""


def load_preprocessing(name_or_path: str) -> Preprocessing:
    """Read what a user gave as `--contract`: a known name or a JSON file.

    Args:
        name_or_path: A key of `NAMED_CONTRACTS`, or the path of a JSON object such as
            `{"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}`; fields left
            out keep ArcFace's values.

    Raises:
        ContractError: The name is unknown, or the file is missing, not JSON, or out of range.
    """
    if name_or_path in NAMED_CONTRACTS:
        return NAMED_CONTRACTS[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise ContractError(
            f"--contract {name_or_path}: neither a known contract "
            f"({', '.join(NAMED_CONTRACTS)}) nor a file. Give one of these names or a JSON file "
            'such as {"mean": [127.5, 127.5, 127.5], "std": [127.5, 127.5, 127.5]}.'
        )
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return Preprocessing.model_validate(values)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ContractError(f"--contract {path}: not a JSON file ({error}).") from error
    except ValidationError as error:
        raise ContractError(f"--contract {path}: {_first_problem(error)}.") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
