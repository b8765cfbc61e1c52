"""What each backend finds in its config, field by field as Triton's documentation has it.

Instance groups, optimisation policy, queue policy, response cache, warm-up: Triton's model
configuration guide. TensorRT's keys: README of triton-inference-server/onnxruntime_backend,
"Parameter mapping". Ensembles: Triton's ensemble models guide.
"""

import stat

import pytest
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import RepositoryError
from mstkd_serve.repository import (
    Device,
    GpuPrecision,
    ServingOptions,
    Target,
    TimeoutAction,
    build_repository,
    check_repository,
)
from mstkd_serve.repository.config import parameters_of, read_config

GPU = triton.ModelInstanceGroup.KIND_GPU
CPU = triton.ModelInstanceGroup.KIND_CPU


@pytest.fixture
def built(tmp_path, recogniser):
    """Build a repository; gives the function from a model's name to its config."""
    source = recogniser(tmp_path / "source.onnx")

    def build(target, **options):
        out = tmp_path / "repository"
        build_repository(
            {"student": source},
            out,
            target=target,
            preprocessing=Preprocessing(),
            options=ServingOptions(**options),
            verify=True,
            replace=True,
        )
        assert set(check_repository(out)) == {"student", "compare", "verify"}
        return lambda name: read_config(out / name / "config.pbtxt")

    return build


def test_the_defaults_are_tritons_advice(built):
    config = built(Target.ONNXRUNTIME)("student")
    assert list(config.dynamic_batching.preferred_batch_size) == []
    assert not config.response_cache.enable
    assert [(group.kind, group.count) for group in config.instance_group] == [(CPU, 1)]
    assert not config.optimization.execution_accelerators.gpu_execution_accelerator


def test_all_queue_options_arrive(built):
    config = built(
        Target.PYTHON,
        max_batch_size=16,
        preferred_batch_sizes=(8, 16),
        max_queue_delay_us=700,
        timeout_action=TimeoutAction.DELAY,
        response_cache=True,
        instances=3,
        weights_license="Apache-2.0",
    )("student")
    batching = config.dynamic_batching
    assert list(batching.preferred_batch_size) == [8, 16]
    assert batching.max_queue_delay_microseconds == 700
    assert batching.default_queue_policy.timeout_action == triton.ModelQueuePolicy.DELAY
    assert config.response_cache.enable
    assert config.instance_group[0].count == 3
    assert parameters_of(config)["mstkd.weights_license"] == "Apache-2.0"


def test_onnxruntime_on_a_gpu_with_tensorrt_has_one_profile_for_all_batches(built):
    config_of = built(Target.ONNXRUNTIME, device=Device.GPU, tensorrt=True, max_batch_size=64)
    config = config_of("student")
    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    assert [group.kind for group in config.instance_group] == [GPU]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(2**30),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/var/cache/mstkd/tensorrt",
        "trt_engine_cache_prefix": "student",
        "trt_profile_min_shapes": "faces:1x112x112x3",
        "trt_profile_opt_shapes": "faces:64x112x112x3",
        "trt_profile_max_shapes": "faces:64x112x112x3",
    }
    assert parameters_of(config)["mstkd.precision"] == "fp16"
    assert not config_of("compare").optimization.execution_accelerators.gpu_execution_accelerator


def test_cuda_alone_keeps_full_precision(built):
    config = built(Target.ONNXRUNTIME, device=Device.GPU)("student")
    assert [group.kind for group in config.instance_group] == [GPU]
    assert parameters_of(config)["mstkd.precision"] == "fp32"


def test_the_python_target_is_told_its_device(built):
    config = built(Target.PYTHON, device=Device.GPU)("student")
    assert [group.kind for group in config.instance_group] == [GPU]
    assert parameters_of(config)["mstkd.device"] == "gpu"


def test_verify_is_an_ensemble_as_triton_wants_it(built):
    config = built(Target.OPENVINO)("verify")
    assert (config.platform, config.backend) == ("ensemble", "")
    assert not config.instance_group
    assert not config.HasField("dynamic_batching")
    assert not config.model_warmup
    steps = config.ensemble_scheduling.step
    assert [(step.model_name, step.model_version) for step in steps] == [
        ("student", -1),
        ("student", -1),
        ("compare", -1),
    ]
    assert [dict(step.input_map) for step in steps] == [
        {"faces": "faces_a"},
        {"faces": "faces_b"},
        {"embedding_a": "embedding_a", "embedding_b": "embedding_b"},
    ]


TRTEXEC = """#!/bin/sh
for word in "$@"; do
  echo "$word" >> "{log}"
  case "$word" in --saveEngine=*) echo plan > "${{word#--saveEngine=}}";; esac
done
{end}
"""


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    """A stand-in for NVIDIA's program, which needs a GPU: it notes its arguments."""

    def put(end="exit 0"):
        program = tmp_path / "bin" / "trtexec"
        program.parent.mkdir()
        program.write_text(TRTEXEC.format(log=tmp_path / "log", end=end))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        return tmp_path / "log"

    return put


def test_the_tensorrt_target_builds_a_plan_for_all_batches(built, trtexec, tmp_path):
    log = trtexec()
    config_of = built(
        Target.TENSORRT, device=Device.GPU, max_batch_size=8, gpu_precision=GpuPrecision.FP16
    )
    config = config_of("student")
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert (tmp_path / "repository/student/1/model.plan").read_text() == "plan\n"
    assert config_of("compare").backend == "onnxruntime"
    words = log.read_text().split()
    for word in (
        "--minShapes=faces:1x112x112x3",
        "--optShapes=faces:8x112x112x3",
        "--maxShapes=faces:8x112x112x3",
        "--fp16",
    ):
        assert word in words
    (tmp_path / "repository/student/1/model.plan").unlink()
    with pytest.raises(RepositoryError, match=r"model\.plan: missing"):
        check_repository(tmp_path / "repository")


def test_without_trtexec_the_tensorrt_target_says_what_it_needs(built, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RepositoryError, match=r"trtexec.*tensorrt container.*--tensorrt"):
        built(Target.TENSORRT, device=Device.GPU)
    assert [path.name for path in tmp_path.iterdir()] == ["source.onnx"]


def test_a_failing_trtexec_leaves_nothing_and_gives_its_reason(built, trtexec, tmp_path):
    trtexec(end="echo '[E] Unsupported operator'; exit 3")
    with pytest.raises(RepositoryError, match=r"status 3: \[E\] Unsupported operator"):
        built(Target.TENSORRT, device=Device.GPU)
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("target", "options", "reason"),
    [
        (Target.OPENVINO, {"device": Device.GPU}, "runs on CPUs"),
        (Target.TENSORRT, {}, "--device gpu"),
        (Target.ONNXRUNTIME, {"tensorrt": True}, "--tensorrt goes with"),
        (Target.PYTHON, {"tensorrt": True, "device": Device.GPU}, "--tensorrt goes with"),
        (Target.ONNXRUNTIME, {"cpu_precision": "auto"}, "--cpu-precision auto goes with"),
    ],
)
def test_targets_that_cannot_do_it_are_refused(built, target, options, reason):
    with pytest.raises(RepositoryError, match=reason):
        built(target, **options)


def test_a_preferred_batch_above_the_largest_is_refused():
    with pytest.raises(ValidationError, match="must lie in 1 to max_batch_size"):
        ServingOptions(max_batch_size=8, preferred_batch_sizes=(16,))
