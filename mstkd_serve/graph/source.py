"""Read a recogniser's ONNX file and check that it can become the served graph."""

import hashlib
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto

from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import GraphError

INPUT_NAME: Final = "faces"
"""Input of the served graph: UINT8 `[N, 112, 112, 3]`, RGB."""
OUTPUT_NAME: Final = "embedding"
"""Output of the served graph: FP32 `[N, dim]`, unit norm."""

_OLDEST_OPSET = 11
_NETWORK_SHAPE = (3, 112, 112)
_SERVED_SHAPE = (112, 112, 3)


def load_model(path: Path, *, single: bool = True) -> ModelProto:
    """Load an ONNX file.

    Initialisers that old exporters also list as inputs are dropped from the inputs.

    Args:
        path: The file.
        single: Whether it must have one input and one output, as a recogniser has.

    Raises:
        GraphError: The file is missing, is not ONNX, has several inputs or outputs, or is of an
            opset below 11.
    """
    if not path.is_file():
        raise GraphError(f"{path}: no such file. Give the path of an ONNX file.")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "cannot be parsed"
        raise GraphError(f"{path}: not a valid ONNX file ({reason}).") from error
    initialisers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialisers]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # below 4, initialisers had to be inputs
    for kind, values in (("input", inputs), ("output", model.graph.output)):
        if single and len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise GraphError(
                f"{path}: a recogniser has one {kind}, this file has {len(values)} ({names}). "
                "Cut it to one with onnx.utils.extract_model."
            )
    if opset(model) < _OLDEST_OPSET:
        raise GraphError(
            f"{path}: opset {opset(model)} is too old. Export again with opset "
            f"{_OLDEST_OPSET} or later, or convert it with onnx.version_converter."
        )
    return model


def opset(model: ModelProto) -> int:
    """Return the version of the default operator set."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def dimensions(value: ValueInfoProto) -> tuple[int | None, ...]:
    """Return a tensor's shape, None where an axis is symbolic."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    )


def is_served(model: ModelProto) -> bool:
    """Tell whether the file already is a served graph (uint8 NHWC faces in)."""
    value = model.graph.input[0]
    return (
        value.type.tensor_type.elem_type == TensorProto.UINT8
        and dimensions(value)[1:] == _SERVED_SHAPE
        and value.name == INPUT_NAME
        and model.graph.output[0].name == OUTPUT_NAME
    )


def is_served_file(path: Path) -> bool:
    """Tell whether an ONNX file already is a served graph.

    Raises:
        GraphError: The file is missing or is not ONNX.
    """
    return is_served(load_model(path))


def check_network_input(model: ModelProto, path: Path) -> None:
    """Refuse an input other than float32 `[1 or N, 3, 112, 112]`.

    Raises:
        GraphError: The input has another type or shape.
    """
    value = model.graph.input[0]
    shape = dimensions(value)
    is_float = value.type.tensor_type.elem_type == TensorProto.FLOAT
    fits = len(shape) == 4 and all(
        size in (None, wanted) for size, wanted in zip(shape[1:], _NETWORK_SHAPE, strict=True)
    )
    if not (is_float and fits and shape[0] in (None, 1)):
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        shown = [size if size is not None else "?" for size in shape]
        raise GraphError(
            f"{path}: its input {value.name!r} is {kind} {shown}; a recogniser takes "
            "FLOAT [N or 1, 3, 112, 112]. Export it for aligned 112x112 faces, float32, NCHW."
        )


def weights_digest(model: ModelProto) -> str:
    """Hash the initialisers and constants: equal weights give equal digests (16 hex digits)."""
    constants = [
        (node.output[0], attribute.t)
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    tensors = sorted(
        [(tensor.name, tensor) for tensor in model.graph.initializer] + constants,
        key=lambda pair: pair[0],
    )
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(onnx.numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()[:16]


def metadata_of(model: ModelProto) -> dict[str, str]:
    """Return the metadata pairs of a loaded model."""
    return {pair.key: pair.value for pair in model.metadata_props}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata pairs of an ONNX file.

    Raises:
        GraphError: The file is missing or is not ONNX.
    """
    return metadata_of(load_model(path, single=False))


def read_contract(path: Path) -> FaceContract | None:
    """Return the contract in an ONNX file's metadata, or None.

    Raises:
        GraphError: The file is missing or is not ONNX.
        ContractError: The contract is malformed.
    """
    return FaceContract.from_metadata(read_metadata(path), source=str(path))
