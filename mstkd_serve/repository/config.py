"""One model's Triton config, as a typed message.

Field names and meanings: Triton's model configuration,
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from pydantic import BaseModel, ConfigDict, Field, field_validator
from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.calibration import Calibration
from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import RepositoryError
from mstkd_serve.golden import GoldenRecord
from mstkd_serve.graph import INPUT_NAME, OUTPUT_NAME

CONFIG_FILE: Final = "config.pbtxt"
MODEL_FILE: Final = "model.onnx"
WARMUP_FOLDER: Final = "warmup"
"""Where Triton looks for warm-up data inside a model's folder."""
WARMUP_FILE: Final = "golden_face.raw"
PRECISION_KEY: Final = "mstkd.precision"
"""Key of the precision that the model is computed in, in a config's `parameters`."""
THREADS_KEY: Final = "mstkd.intra_op_threads"
MAX_REQUEST_BYTES_KEY: Final = "mstkd.max_request_bytes"
"""Key of the most bytes of pixels that clients put into one request."""


FACE_BYTES: Final = 112 * 112 * 3


class Target(StrEnum):
    """Which of Triton's backends runs the model."""

    PYTHON = "python"
    """`model.py` over OpenVINO or ONNX Runtime: what a pip-installed tritonserver can run."""
    ONNXRUNTIME = "onnxruntime"
    """NVIDIA's container, ONNX Runtime backend."""
    OPENVINO = "openvino"
    """NVIDIA's container, OpenVINO backend."""


# Triton's OpenVINO backend has no setting for full precision: OpenVINO then computes in bf16 on
# CPUs with AMX or AVX512-BF16.
_PRECISION: Final = {
    Target.PYTHON: "fp32",
    Target.ONNXRUNTIME: "fp32",
    Target.OPENVINO: "backend-default",
}


class ServingOptions(BaseModel):
    """How a model is served.

    Attributes:
        max_batch_size: Largest batch that Triton forms, and largest request it takes.
        max_queue_size: Most requests that wait; one more is refused at once, so that a client
            can go elsewhere or come back, instead of waiting without an end. 0 sets no bound.
        queue_timeout_ms: Longest wait in the queue, milliseconds; who waited longer is refused
            without being run. A client's own timeout shortens it.
        max_queue_delay_us: How long a request may wait for companions, microseconds. 0 batches
            only what already waits, which never delays a lone request.
        instances: Copies of the model that run side by side.
        intra_op_threads: Threads of one instance; 0 shares the machine's cores among instances.
        max_request_bytes: Most bytes of pixels that clients shall put into one request, for a
            proxy with a limit of its own; 0 leaves it to `max_batch_size`. A face has 37,632.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: int = Field(default=32, ge=1, le=1024)
    max_queue_size: int = Field(default=256, ge=0, le=1_000_000)
    queue_timeout_ms: int = Field(default=60_000, ge=1, le=86_400_000)
    max_queue_delay_us: int = Field(default=0, ge=0, le=10_000_000)
    instances: int = Field(default=1, ge=1, le=64)
    intra_op_threads: int = Field(default=0, ge=0, le=1024)
    max_request_bytes: int = Field(default=0, ge=0, le=2**31 - 1)

    @field_validator("max_request_bytes")
    @classmethod
    def _holds_a_face(cls, value: int) -> int:
        if 0 < value < FACE_BYTES:
            raise ValueError(f"one face needs {FACE_BYTES} bytes, got {value}")
        return value


def model_config(
    name: str,
    contract: FaceContract,
    golden: GoldenRecord,
    target: Target,
    options: ServingOptions,
    calibration: Calibration | None = None,
) -> triton.ModelConfig:
    """Return the config of one embedding model.

    Args:
        name: Model name, equal to its folder's.
        contract: The served graph's contract; goes into `parameters`.
        golden: The served graph's golden embeddings; go into `parameters`.
        target: The backend.
        options: Batching, instances and threads.
        calibration: The served graph's calibrated decision, if it has one.
    """
    config = triton.ModelConfig(name=name, backend=target.value)
    config.max_batch_size = options.max_batch_size
    if target is not Target.PYTHON:
        config.default_model_filename = MODEL_FILE
    config.input.add(name=INPUT_NAME, data_type=triton.TYPE_UINT8, dims=[112, 112, 3])
    config.output.add(name=OUTPUT_NAME, data_type=triton.TYPE_FP32, dims=[contract.embedding_dim])
    config.instance_group.add(count=options.instances, kind=triton.ModelInstanceGroup.KIND_CPU)
    config.dynamic_batching.max_queue_delay_microseconds = options.max_queue_delay_us
    policy = config.dynamic_batching.default_queue_policy
    policy.timeout_action = triton.ModelQueuePolicy.REJECT
    policy.default_timeout_microseconds = options.queue_timeout_ms * 1000
    policy.allow_timeout_override = True  # Triton takes a client's timeout where it is shorter
    policy.max_queue_size = options.max_queue_size
    for batch_size in sorted({1, options.max_batch_size}):
        warmup = config.model_warmup.add(name=f"golden_face_x{batch_size}", batch_size=batch_size)
        warmup.inputs[INPUT_NAME].data_type = triton.TYPE_UINT8
        warmup.inputs[INPUT_NAME].dims.extend([112, 112, 3])
        warmup.inputs[INPUT_NAME].input_data_file = WARMUP_FILE
    parameters = (
        contract.metadata()
        | golden.metadata()
        | (calibration.metadata() if calibration else {})
        | {PRECISION_KEY: _PRECISION[target]}
        | _thread_parameters(target, options)
        | (
            {MAX_REQUEST_BYTES_KEY: str(options.max_request_bytes)}
            if options.max_request_bytes
            else {}
        )
    )
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def _thread_parameters(target: Target, options: ServingOptions) -> dict[str, str]:
    """Return the setting for threads: each backend has its own word."""
    threads = str(options.intra_op_threads)
    match target:
        case Target.PYTHON:
            return {THREADS_KEY: threads}
        case Target.ONNXRUNTIME:
            return {"intra_op_thread_count": threads}
        case Target.OPENVINO:
            return {"INFERENCE_NUM_THREADS": threads} if options.intra_op_threads else {}


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
