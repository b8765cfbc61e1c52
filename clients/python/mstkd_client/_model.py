"""From a model's metadata and config, as the server gives them, to what the client goes by."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mstkd_client._errors import ContractMismatch
from mstkd_client._types import Calibration, ModelInfo
from mstkd_client._wire import FACE_BYTES, FACE_SHAPE, INPUT_NAME, OUTPUT_NAME

CONTRACT_KEY: Final = "mstkd.contract"
CONTRACT_ID_KEY: Final = "mstkd.contract_id"
CALIBRATION_KEY: Final = "mstkd.calibration"
MAX_REQUEST_BYTES_KEY: Final = "mstkd.max_request_bytes"

_CHUNK_WITHOUT_LIMIT: Final = 64
_REMEDY: Final = "Build the model repository with `mstkd-serve repo build`."
_SPOKEN: Final = {"height": 112, "width": 112, "channel_order": "RGB", "dtype": "uint8"}


class ServedModel(NamedTuple):
    """A model that this client can use.

    Attributes:
        info: What callers may know of it.
        chunk_size: The most faces of one request, at least 1.
    """

    info: ModelInfo
    chunk_size: int

    def rows(self, max_request_bytes: int, batch_size: int | None) -> int:
        """Return the faces of one request under the caller's limits as well, at least 1."""
        return max(1, min(self.chunk_size, max_request_bytes // FACE_BYTES, batch_size or 2**31))


def parse_model(
    metadata: Any, config: Any, server_version: str, model_version: str = ""
) -> ServedModel:
    """Read the server's two answers about a model.

    Args:
        metadata: Triton's `ModelMetadataResponse`.
        config: Triton's `ModelConfig`.
        server_version: Triton's version.
        model_version: The version asked for, "" for the server's choice.

    Raises:
        ContractMismatch: The model was not built by MSTKD Serve, takes or gives other tensors, or
            its contract asks for faces that this client does not send.
    """
    name = str(metadata.name)
    parameters = {key: str(value.string_value) for key, value in config.parameters.items()}
    contract = read_contract(parameters, name)
    batch_axis = _batch_axis(metadata, name)
    max_batch_size = int(config.max_batch_size)
    info = ModelInfo(
        model_name=name,
        model_versions=tuple(metadata.versions),
        embedding_dim=_embedding_dim(metadata, contract, name),
        max_batch_size=max_batch_size,
        contract_id=parameters[CONTRACT_ID_KEY],
        contract=contract,
        server_version=server_version,
        calibration=read_calibration(parameters, name, model_version),
        max_request_bytes=_max_request_bytes(parameters, name),
    )
    free = _CHUNK_WITHOUT_LIMIT if batch_axis == -1 else 1
    rows = max_batch_size or free
    if info.max_request_bytes:
        rows = max(1, min(rows, info.max_request_bytes // FACE_BYTES))
    return ServedModel(info, rows)


def _max_request_bytes(parameters: Mapping[str, str], name: str) -> int:
    text = parameters.get(MAX_REQUEST_BYTES_KEY, "0")
    if not text.isdecimal():
        raise ContractMismatch(
            f"model {name!r}: its {MAX_REQUEST_BYTES_KEY} {text!r} is no number of bytes. {_REMEDY}"
        )
    return int(text)


def read_calibration(
    parameters: Mapping[str, str], name: str, model_version: str = ""
) -> Calibration | None:
    """Read a model's calibrated decision; None where it carries none.

    Where a model has several versions, each one's facts stand under a key that ends in
    `@VERSION`, and the plain key is that of the version which the server chooses.

    Raises:
        ContractMismatch: It is damaged, or belongs to another contract.
    """
    several = any("@" in key for key in parameters)
    key = f"{CALIBRATION_KEY}@{model_version}" if several and model_version else CALIBRATION_KEY
    text = parameters.get(key)
    if text is None:
        return None
    try:
        values = json.loads(text)
        if values["contract_id"] != parameters[CONTRACT_ID_KEY]:
            raise ValueError("it belongs to another contract")
        logistic = values.get("probability")
        return Calibration(
            threshold=float(values["threshold"]),
            fmr=float(values["fmr"]),
            policy=str(values["policy"]),
            group_fmr={key: float(rate) for key, rate in values["group_fmr"].items()},
            group_fnmr={key: float(rate) for key, rate in values["group_fnmr"].items()},
            data=str(values["data"]),
            pairs=int(values["pairs"]),
            probability=(float(logistic["slope"]), float(logistic["intercept"]))
            if logistic
            else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractMismatch(
            f"model {name!r} carries a calibration that cannot be used ({error}). {_REMEDY}"
        ) from error


def read_contract(parameters: Mapping[str, str], name: str) -> dict[str, Any]:
    """Read a model's face contract, and check its id against its values.

    Raises:
        ContractMismatch: It is missing or damaged, or asks for faces this client does not send.
    """
    missing = [key for key in (CONTRACT_KEY, CONTRACT_ID_KEY) if not parameters.get(key)]
    if missing:
        raise ContractMismatch(
            f"model {name!r} has no {' and no '.join(missing)} in its config, so its embeddings "
            f"cannot be told apart from another model's. {_REMEDY}"
        )
    if _digest(parameters[CONTRACT_KEY]) != parameters[CONTRACT_ID_KEY]:
        raise ContractMismatch(
            f"model {name!r}: its {CONTRACT_KEY} does not hash to its {CONTRACT_ID_KEY}: one of "
            f"them was edited. {_REMEDY}"
        )
    try:
        contract = json.loads(parameters[CONTRACT_KEY])
    except ValueError as error:
        raise ContractMismatch(
            f"model {name!r}: its {CONTRACT_KEY} is not JSON ({error}). {_REMEDY}"
        ) from error
    if not isinstance(contract, dict):
        raise ContractMismatch(f"model {name!r}: its {CONTRACT_KEY} is no JSON object. {_REMEDY}")
    for key, spoken in _SPOKEN.items():
        if contract.get(key, spoken) != spoken:
            raise ContractMismatch(
                f"model {name!r} wants faces with {key} {contract[key]!r}; this client sends "
                f"{spoken!r}. Install a client of the server's version."
            )
    return contract


def _digest(text: str) -> str:
    """Return the first 16 hex digits of the SHA-256: how a contract's id is made."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _batch_axis(metadata: Any, name: str) -> int:
    """Check the input tensor and return its first dimension: -1 (any) or 1."""
    tensors = {tensor.name: tensor for tensor in metadata.inputs}
    described = _described(tensors, INPUT_NAME)
    shape = tuple(tensors[INPUT_NAME].shape) if INPUT_NAME in tensors else ()
    fits = len(tensors) == 1 and len(shape) == 4 and shape[1:] == FACE_SHAPE
    if not fits or shape[0] not in (-1, 1) or tensors[INPUT_NAME].datatype != "UINT8":
        raise ContractMismatch(
            f"model {name!r} takes {described}, not the one input {INPUT_NAME} UINT8 "
            f"[-1, 112, 112, 3]. {_REMEDY}"
        )
    return int(shape[0])


def _embedding_dim(metadata: Any, contract: Mapping[str, Any], name: str) -> int:
    tensors = {tensor.name: tensor for tensor in metadata.outputs}
    shape = tuple(tensors[OUTPUT_NAME].shape) if OUTPUT_NAME in tensors else ()
    if len(shape) != 2 or tensors[OUTPUT_NAME].datatype != "FP32":
        raise ContractMismatch(
            f"model {name!r} gives {_described(tensors, OUTPUT_NAME)}, not {OUTPUT_NAME} FP32 "
            f"[-1, dim]. {_REMEDY}"
        )
    served, agreed = int(shape[1]), contract.get("embedding_dim")
    dim = agreed if served == -1 else served
    if not isinstance(dim, int) or dim < 1 or (agreed is not None and agreed != dim):
        raise ContractMismatch(
            f"model {name!r} serves embeddings of dimension {served}, but its contract says "
            f"{agreed}. {_REMEDY}"
        )
    return dim


def _described(tensors: Mapping[str, Any], wanted: str) -> str:
    chosen = [tensors[wanted]] if wanted in tensors else list(tensors.values())
    listed = [f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in chosen]
    more = f" and {len(tensors) - len(chosen)} more" if len(tensors) > len(chosen) else ""
    return (", ".join(listed) or "nothing") + more
