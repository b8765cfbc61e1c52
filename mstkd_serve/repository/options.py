"""How models are served: what `repo build` may be told."""

from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FACE_BYTES: Final = 112 * 112 * 3


class Target(StrEnum):
    """Which of Triton's backends runs the model."""

    PYTHON = "python"
    """`model.py` over OpenVINO or ONNX Runtime: what a pip-installed tritonserver can run."""
    ONNXRUNTIME = "onnxruntime"
    """NVIDIA's container, ONNX Runtime backend."""
    OPENVINO = "openvino"
    """NVIDIA's container, OpenVINO backend; CPUs only."""
    TENSORRT = "tensorrt"
    """NVIDIA's container, TensorRT backend: a plan made for one kind of GPU."""


class Device(StrEnum):
    """What computes."""

    CPU = "cpu"
    GPU = "gpu"


class TimeoutAction(StrEnum):
    """What becomes of a request that waited too long."""

    REJECT = "reject"
    """It is refused without being run."""
    DELAY = "delay"
    """It is run after all that did not wait too long."""


class CpuPrecision(StrEnum):
    """Precision of the python target on a CPU."""

    FP32 = "fp32"
    BF16 = "bf16"
    """OpenVINO in bfloat16; a server whose runtime cannot do it refuses the model."""
    AUTO = "auto"
    """bf16 where the serving CPU computes in it (AMX, AVX512-BF16) and OpenVINO is there, and the
    golden face keeps its embedding; fp32 otherwise. Chosen when the model is loaded, and logged."""


class GpuPrecision(StrEnum):
    """Precision of TensorRT, alone or inside ONNX Runtime."""

    FP32 = "fp32"
    FP16 = "fp16"


class ServingOptions(BaseModel):
    """How a model is served.

    Attributes:
        device: `gpu` puts instances on GPUs and never falls back to the CPU.
        max_batch_size: Largest batch that Triton forms, and largest request it takes.
        preferred_batch_sizes: Batches worth waiting for. Triton's own advice is to give none
            unless a size is much faster than its neighbours.
        max_queue_size: Most requests that wait; one more is refused at once, so that a client
            can go elsewhere or come back, instead of waiting without an end. 0 sets no bound.
        queue_timeout_ms: Longest wait in the queue, milliseconds; 0 sets none. A client's own
            timeout shortens it. With no bound on size either, the config has no queue policy:
            Triton then hands an instance its next batch in advance, which a policy forbids
            (https://github.com/triton-inference-server/core/pull/237). With a policy a request
            that comes just as the only instance ends its last one may wait half a second.
        timeout_action: What becomes of who waited longer.
        max_queue_delay_us: How long a request may wait for companions, microseconds. 0 batches
            only what already waits, which never delays a lone request.
        instances: Copies of the model that run side by side; on a GPU target, on each GPU.
        intra_op_threads: Threads of one instance; 0 shares the machine's cores among instances.
        max_request_bytes: Most bytes of pixels that clients shall put into one request, for a
            proxy with a limit of its own; 0 leaves it to `max_batch_size`. A face has 37,632.
        tensorrt: Whether ONNX Runtime shall hand the graph to TensorRT (target onnxruntime on a
            GPU). The first start builds an engine for batches of 1 to `max_batch_size`, and
            keeps it in `engine_cache`.
        cpu_precision: Precision of the python target on a CPU.
        gpu_precision: Precision of TensorRT.
        engine_cache: Folder on the server for TensorRT's engines.
        response_cache: Whether Triton remembers answers. Faces and embeddings are biometric
            data, so this is off unless asked for; the server needs a cache as well
            (`up --cache-bytes`).
        weights_license: Licence of the weights, as text for the config's `parameters`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = Device.CPU
    max_batch_size: int = Field(default=32, ge=1, le=1024)
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_size: int = Field(default=256, ge=0, le=1_000_000)
    queue_timeout_ms: int = Field(default=60_000, ge=0, le=86_400_000)
    timeout_action: TimeoutAction = TimeoutAction.REJECT
    max_queue_delay_us: int = Field(default=0, ge=0, le=10_000_000)
    instances: int = Field(default=1, ge=1, le=64)
    intra_op_threads: int = Field(default=0, ge=0, le=1024)
    max_request_bytes: int = Field(default=0, ge=0, le=2**31 - 1)
    tensorrt: bool = False
    cpu_precision: CpuPrecision = CpuPrecision.FP32
    gpu_precision: GpuPrecision = GpuPrecision.FP16
    engine_cache: str = Field(default="/var/cache/mstkd/tensorrt", min_length=1, max_length=500)
    response_cache: bool = False
    weights_license: str = Field(default="", max_length=1000)

    @field_validator("max_request_bytes")
    @classmethod
    def _holds_a_face(cls, value: int) -> int:
        if 0 < value < FACE_BYTES:
            raise ValueError(f"one face needs {FACE_BYTES} bytes, got {value}")
        return value

    @model_validator(mode="after")
    def _preferred_sizes_fit(self) -> Self:
        wrong = [
            size for size in self.preferred_batch_sizes if not 1 <= size <= self.max_batch_size
        ]
        if wrong:
            raise ValueError(
                f"preferred_batch_sizes {wrong} must lie in 1 to max_batch_size "
                f"({self.max_batch_size})"
            )
        return self

    def require_target(self, target: Target) -> None:
        """Raise ValueError where the target cannot do what these options ask for."""
        on_gpu = self.device is Device.GPU
        if target is Target.OPENVINO and on_gpu:
            raise ValueError("--device gpu: the openvino target runs on CPUs; use onnxruntime")
        if target is Target.TENSORRT and not on_gpu:
            raise ValueError("--target tensorrt runs on GPUs: give --device gpu")
        if self.cpu_precision is not CpuPrecision.FP32 and (target is not Target.PYTHON or on_gpu):
            raise ValueError(
                f"--cpu-precision {self.cpu_precision.value} goes with --target python on a CPU"
            )
        if self.tensorrt and (target is not Target.ONNXRUNTIME or not on_gpu):
            raise ValueError("--tensorrt goes with --target onnxruntime --device gpu")
