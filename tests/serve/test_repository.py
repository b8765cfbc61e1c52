from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.contract import FaceContract, Preprocessing
from mstkd_serve.errors import ContractError, GraphError, RepositoryError
from mstkd_serve.golden import GoldenRecord, golden_faces
from mstkd_serve.repository import ServingOptions, Target, build_repository, check_repository
from mstkd_serve.repository.config import parameters_of, read_config


@pytest.fixture
def source(tmp_path, recogniser) -> Path:
    return recogniser(tmp_path / "source.onnx")


def build(source: Path, out: Path, target: Target = Target.PYTHON, **options) -> FaceContract:
    contracts = build_repository(
        {"student": source},
        out,
        target=target,
        preprocessing=Preprocessing(),
        options=ServingOptions(**options),
    )
    return contracts["student"]


@pytest.mark.parametrize("target", [Target.PYTHON, Target.ONNXRUNTIME, Target.OPENVINO])
def test_config_states_shapes_contract_batching_and_warmup(tmp_path, source, target):
    out = tmp_path / "repository"
    contract = build(source, out, target, max_batch_size=16, max_queue_delay_us=500, instances=2)
    config = read_config(out / "student" / "config.pbtxt")

    assert config.name == "student"
    assert config.backend == target.value
    assert config.max_batch_size == 16
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("faces", triton.TYPE_UINT8, [112, 112, 3])
    ]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
        ("embedding", triton.TYPE_FP32, [16])
    ]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.instance_group[0].count == 2
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 16]
    parameters = parameters_of(config)
    assert FaceContract.from_metadata(parameters, source="config") == contract
    assert GoldenRecord.from_metadata(parameters, source="config").embeddings.shape == (4, 16)
    raw = (out / "student" / "warmup" / "golden_face.raw").read_bytes()
    assert raw == golden_faces()[0].tobytes()
    assert (out / "student" / "1" / "model.py").exists() is (target is Target.PYTHON)
    assert config.default_model_filename == ("" if target is Target.PYTHON else "model.onnx")
    assert check_repository(out) == {"student": contract}


def test_the_queue_is_bounded_and_a_clients_timeout_counts_in_it(tmp_path, source):
    build(source, tmp_path / "usual")
    policy = read_config(tmp_path / "usual/student/config.pbtxt").dynamic_batching
    policy = policy.default_queue_policy
    assert policy.timeout_action == triton.ModelQueuePolicy.REJECT
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (256, 60_000_000)
    assert policy.allow_timeout_override
    build(source, tmp_path / "own", max_queue_size=7, queue_timeout_ms=5, max_request_bytes=10**6)
    config = read_config(tmp_path / "own/student/config.pbtxt")
    policy = config.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (7, 5000)
    assert parameters_of(config)["mstkd.max_request_bytes"] == "1000000"
    with pytest.raises(ValidationError, match="37632"):
        ServingOptions(max_request_bytes=100)


def test_a_queue_without_bounds_has_no_policy_at_all(tmp_path, source):
    build(source, tmp_path / "free", max_queue_size=0, queue_timeout_ms=0)
    free = read_config(tmp_path / "free/student/config.pbtxt").dynamic_batching
    assert not free.HasField("default_queue_policy")
    build(source, tmp_path / "timed", max_queue_size=0)
    timed = read_config(tmp_path / "timed/student/config.pbtxt").dynamic_batching
    assert timed.default_queue_policy.default_timeout_microseconds == 60_000_000


def test_openvino_target_file_is_one_that_openvino_reads(tmp_path, source):
    build(source, tmp_path / "repository", Target.OPENVINO)
    model = openvino.Core().read_model(tmp_path / "repository" / "student" / "1" / "model.onnx")
    assert model.input(0).any_name == "faces"
    assert model.output(0).any_name == "embedding"


def test_several_models_in_one_repository(tmp_path, recogniser):
    files = {name: recogniser(tmp_path / f"{name}.onnx", seed=i) for i, name in enumerate("ab")}
    contracts = build_repository(
        files, tmp_path / "out", target=Target.PYTHON, preprocessing=Preprocessing()
    )
    assert list(check_repository(tmp_path / "out")) == ["a", "b"]
    assert contracts["a"].id != contracts["b"].id


def test_existing_folder_is_kept_unless_told(tmp_path, source):
    out = tmp_path / "repository"
    build(source, out)
    before = (out / "student" / "config.pbtxt").read_bytes()
    with pytest.raises(RepositoryError, match="--replace"):
        build(source, out, max_batch_size=4)
    assert (out / "student" / "config.pbtxt").read_bytes() == before
    build_repository(
        {"other": source},
        out,
        target=Target.PYTHON,
        preprocessing=Preprocessing(),
        replace=True,
    )
    assert [path.name for path in out.iterdir()] == ["other"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path, source):
    precious = tmp_path / "home" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(RepositoryError, match="is not a model repository"):
        build_repository(
            {"student": source},
            precious.parent,
            target=Target.PYTHON,
            preprocessing=Preprocessing(),
            replace=True,
        )
    assert precious.exists()


def test_a_failed_build_leaves_nothing(tmp_path, source):
    with pytest.raises(ContractError):
        build_repository({"student": source}, tmp_path / "out", target=Target.PYTHON)
    with pytest.raises(GraphError):
        build(tmp_path / "missing.onnx", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source.onnx"]


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "a" * 65, ".hidden"])
def test_bad_model_names_are_refused(tmp_path, source, name):
    with pytest.raises(RepositoryError, match="model name"):
        build_repository({name: source}, tmp_path / "out", target=Target.PYTHON)


def damage_contract(model: Path) -> None:
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace("127.5", "127.0", 1))


def damage_weights_metadata(model: Path) -> None:
    path = model / "1" / "model.onnx"
    onnx_model = onnx.load(path)
    del onnx_model.metadata_props[:]
    onnx.save(onnx_model, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: (model / "config.pbtxt").unlink(), "config.pbtxt: missing"),
        (lambda model: (model / "config.pbtxt").write_text("nonsense {"), "not a Triton"),
        (damage_contract, "contract id"),
        (damage_weights_metadata, "contract id is missing"),
        (lambda model: (model / "1" / "model.onnx").unlink(), "model.onnx: no such file"),
        (lambda model: (model / "1" / "model.py").unlink(), "model.py: missing"),
        (lambda model: (model / "warmup" / "golden_face.raw").write_bytes(b""), "warm-up"),
        (lambda model: (model / "1").rename(model / "one"), "no version folder"),
        (lambda model: model.rename(model.parent / "renamed"), "its folder 'renamed'"),
    ],
)
def test_check_names_what_is_wrong(tmp_path, source, damage, message):
    out = tmp_path / "repository"
    build(source, out)
    damage(out / "student")
    with pytest.raises(RepositoryError, match=message):
        check_repository(out)


def test_check_lists_every_problem(tmp_path, source):
    out = tmp_path / "repository"
    build(source, out)
    (out / "student" / "1" / "model.py").unlink()
    (out / "student" / "warmup" / "golden_face.raw").unlink()
    with pytest.raises(RepositoryError) as caught:
        check_repository(out)
    assert len(str(caught.value).splitlines()) == 2


def test_check_of_nothing(tmp_path):
    with pytest.raises(RepositoryError, match="no such folder"):
        check_repository(tmp_path / "none")
    with pytest.raises(RepositoryError, match="holds no model"):
        check_repository(tmp_path)


def test_golden_faces_are_rendered_faces():
    faces = golden_faces()
    assert faces.shape == (4, 112, 112, 3)
    assert faces.dtype == np.uint8
    assert len({face.tobytes() for face in faces}) == 4
