"""One model's Triton config, as a typed message.

Field names and meanings: Triton's model configuration,
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.calibration import Calibration
from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import RepositoryError
from mstkd_serve.golden import GoldenRecord
from mstkd_serve.graph import INPUT_NAME
from mstkd_serve.model_kind import KIND_KEY, Kind
from mstkd_serve.repository.backend import precision_of, set_backend
from mstkd_serve.repository.options import ServingOptions, Target, TimeoutAction

CONFIG_FILE: Final = "config.pbtxt"
WARMUP_FOLDER: Final = "warmup"
"""Where Triton looks for warm-up data inside a model's folder."""
WARMUP_FILE: Final = "golden_face.raw"
PRECISION_KEY: Final = "mstkd.precision"
"""Key of the precision that the model is computed in."""
MAX_REQUEST_BYTES_KEY: Final = "mstkd.max_request_bytes"
"""Key of the most bytes of pixels that clients put into one request."""
LICENSE_KEY: Final = "mstkd.weights_license"
FACE_SHAPE: Final = (112, 112, 3)


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model: its name, Triton's type, and shape without the batch axis."""

    name: str
    kind: int
    shape: tuple[int, ...]


FACES: Final = Tensor(INPUT_NAME, triton.TYPE_UINT8, FACE_SHAPE)


def embedding_tensor(name: str, dim: int) -> Tensor:
    """Return the description of a batch of embeddings."""
    return Tensor(name, triton.TYPE_FP32, (dim,))


def facts(
    kind: Kind,
    contract: FaceContract,
    options: ServingOptions,
    golden: GoldenRecord | None = None,
    calibration: Calibration | None = None,
) -> dict[str, str]:
    """Return what a config's `parameters` tell people and programs about a model."""
    pairs = {KIND_KEY: kind.value} | contract.metadata()
    if golden is not None:
        pairs |= golden.metadata()
    if calibration is not None:
        pairs |= calibration.metadata()
    if options.max_request_bytes:
        pairs[MAX_REQUEST_BYTES_KEY] = str(options.max_request_bytes)
    if options.weights_license:
        pairs[LICENSE_KEY] = options.weights_license
    return pairs


def model_config(
    name: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    parameters: Mapping[str, str],
    target: Target,
    options: ServingOptions,
) -> triton.ModelConfig:
    """Return the config of a model that a backend runs.

    Args:
        name: Model name, equal to its folder's.
        inputs: Its inputs.
        outputs: Its outputs, in the graph's order.
        parameters: From `facts`.
        target: The backend.
        options: Batching, instances and threads.
    """
    config = triton.ModelConfig(name=name, max_batch_size=options.max_batch_size)
    add_tensors(config, inputs, outputs)
    set_backend(config, target, options, {tensor.name: tensor.shape for tensor in inputs})
    batching = config.dynamic_batching
    batching.preferred_batch_size.extend(options.preferred_batch_sizes)
    batching.max_queue_delay_microseconds = options.max_queue_delay_us
    if options.max_queue_size or options.queue_timeout_ms:
        policy = batching.default_queue_policy
        reject = options.timeout_action is TimeoutAction.REJECT
        policy.timeout_action = (
            triton.ModelQueuePolicy.REJECT if reject else triton.ModelQueuePolicy.DELAY
        )
        policy.default_timeout_microseconds = options.queue_timeout_ms * 1000
        policy.allow_timeout_override = True  # Triton takes a client's timeout if it is shorter
        policy.max_queue_size = options.max_queue_size
    for batch_size in sorted({1, options.max_batch_size}):
        warmup = config.model_warmup.add(name=f"warmup_x{batch_size}", batch_size=batch_size)
        for tensor in inputs:
            data = warmup.inputs[tensor.name]
            data.data_type = tensor.kind
            data.dims.extend(tensor.shape)
            if tensor == FACES:
                data.input_data_file = WARMUP_FILE
            else:
                data.random_data = True
    if options.response_cache:
        config.response_cache.enable = True
    set_parameters(config, dict(parameters) | {PRECISION_KEY: precision_of(target, options)})
    return config


def add_tensors(
    config: triton.ModelConfig, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> None:
    """Describe a model's inputs and outputs in its config."""
    for tensor in inputs:
        config.input.add(name=tensor.name, data_type=tensor.kind, dims=tensor.shape)
    for tensor in outputs:
        config.output.add(name=tensor.name, data_type=tensor.kind, dims=tensor.shape)


def set_parameters(config: triton.ModelConfig, parameters: Mapping[str, str]) -> None:
    """Write string parameters into a config."""
    for key, value in parameters.items():
        config.parameters[key].string_value = value


def parameters_of(config: triton.ModelConfig) -> dict[str, str]:
    """Return a config's string parameters."""
    return {key: value.string_value for key, value in config.parameters.items()}


def render_config(config: triton.ModelConfig) -> str:
    """Return the config in protobuf text format, as `config.pbtxt` holds it."""
    return str(text_format.MessageToString(config))


def read_config(path: Path) -> triton.ModelConfig:
    """Parse a `config.pbtxt`.

    Raises:
        RepositoryError: The file is missing or is not a model config.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), triton.ModelConfig())
    except FileNotFoundError as error:
        raise RepositoryError(f"{path}: missing. Build the repository again.") from error
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        raise RepositoryError(f"{path}: not a Triton model config ({error}).") from error
