"""What each of Triton's backends wants to find in a config.

Sources: Triton's model configuration guide (instance groups, optimization policy,
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html)
and the READMEs of https://github.com/triton-inference-server/onnxruntime_backend (TensorRT
accelerator, thread counts) and https://github.com/triton-inference-server/openvino_backend.
"""

from collections.abc import Mapping
from typing import Final

from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.repository.options import Device, GpuPrecision, ServingOptions, Target

MODEL_FILE: Final = "model.onnx"
PLAN_FILE: Final = "model.plan"
THREADS_KEY: Final = "mstkd.intra_op_threads"
DEVICE_KEY: Final = "mstkd.device"

_WORKSPACE_BYTES: Final = 2**30
_FILES: Final = {
    Target.PYTHON: "",
    Target.ONNXRUNTIME: MODEL_FILE,
    Target.OPENVINO: MODEL_FILE,
    Target.TENSORRT: PLAN_FILE,
}


def set_backend(
    config: triton.ModelConfig,
    target: Target,
    options: ServingOptions,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Fill in what a model's backend needs: file, instances, threads, accelerator.

    Args:
        config: The config to fill in.
        target: The backend.
        options: Device, instances, threads, TensorRT.
        shapes: Shape of each input without its batch axis, for TensorRT's profile.
    """
    config.backend = target.value
    config.default_model_filename = _FILES[target]
    kind = triton.ModelInstanceGroup.KIND_CPU
    if options.device is Device.GPU:
        kind = triton.ModelInstanceGroup.KIND_GPU
    config.instance_group.add(count=options.instances, kind=kind)
    for key, value in _thread_parameters(target, options).items():
        config.parameters[key].string_value = value
    if options.tensorrt:
        accelerators = config.optimization.execution_accelerators
        tensorrt = accelerators.gpu_execution_accelerator.add(name="tensorrt")
        for key, value in _tensorrt_parameters(config.name, options, shapes).items():
            tensorrt.parameters[key] = value


def precision_of(target: Target, options: ServingOptions) -> str:
    """Return the precision that a config states for its model.

    Triton's OpenVINO backend has no setting for full precision: OpenVINO then computes in bf16
    on CPUs with AMX or AVX512-BF16.
    """
    if target is Target.OPENVINO:
        return "backend-default"
    if target is Target.TENSORRT or options.tensorrt:
        return options.gpu_precision.value
    return options.cpu_precision.value


def profile(shapes: Mapping[str, tuple[int, ...]], batch_size: int) -> str:
    """Return TensorRT's notation of the inputs' shapes at a batch size: `faces:8x112x112x3`."""
    return ",".join(
        f"{name}:{'x'.join(map(str, (batch_size, *shape)))}" for name, shape in shapes.items()
    )


def _thread_parameters(target: Target, options: ServingOptions) -> dict[str, str]:
    """Return the setting for threads: each backend has its own word."""
    threads = str(options.intra_op_threads)
    match target:
        case Target.PYTHON:
            return {THREADS_KEY: threads, DEVICE_KEY: options.device.value}
        case Target.ONNXRUNTIME:
            return {"intra_op_thread_count": threads}
        case Target.OPENVINO:
            return {"INFERENCE_NUM_THREADS": threads} if options.intra_op_threads else {}
        case Target.TENSORRT:
            return {}


def _tensorrt_parameters(
    name: str, options: ServingOptions, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    return {
        "precision_mode": "FP16" if options.gpu_precision is GpuPrecision.FP16 else "FP32",
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": options.engine_cache,
        "trt_engine_cache_prefix": name,
        # One profile for all batches, so that no engine is built again for a new shape.
        "trt_profile_min_shapes": profile(shapes, 1),
        "trt_profile_opt_shapes": profile(shapes, options.max_batch_size),
        "trt_profile_max_shapes": profile(shapes, options.max_batch_size),
    }
