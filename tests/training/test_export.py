from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

import mstkd_training.export
from mstkd_serve.contract import CONTRACT_ID_KEY, FaceContract
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import ContractError, ParityError
from mstkd_serve.graph import read_contract
from mstkd_training.artifact import Artifact
from mstkd_training.embedding import embed, unit
from mstkd_training.export import export
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe_file import load_recipe
from mstkd_training.stages.adaptor import load_adaptor
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.teacher import load_backbone


@pytest.fixture(scope="module")
def images(finished_run: Path) -> NDArray[np.uint8]:
    return np.array(read_faces(Artifact.open(finished_run / "data")).images[:8])


@pytest.mark.parametrize("name", ["student", "teacher_asian"])
def test_served_backbone_equals_torch(
    finished_run: Path, tmp_path: Path, images: NDArray[np.uint8], name: str
) -> None:
    artifact = Artifact.open(finished_run / name)
    contract, agreement = export(artifact.path, tmp_path / "m.onnx")
    assert agreement.min_cosine > 0.99999
    wanted = embed(load_backbone(artifact), torch.from_numpy(images), contract.preprocessing)
    engine = OnnxRuntimeEngine(tmp_path / "m.onnx")
    np.testing.assert_allclose(engine.run(images), wanted, atol=1e-5)
    np.testing.assert_allclose(engine.run(images[:1]), wanted[:1], atol=1e-5)
    assert read_contract(tmp_path / "m.onnx") == contract
    assert contract.embedding_space == artifact.manifest.embedding_space


def test_adaptor_becomes_the_whole_path_in_the_students_space(
    finished_run: Path, tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    path_contract, _ = export(finished_run / "adaptor", tmp_path / "path.onnx")
    student_contract, _ = export(finished_run / "student", tmp_path / "student.onnx")
    assert path_contract.id == student_contract.id
    adaptor = Artifact.open(finished_run / "adaptor")
    pixels = torch.from_numpy(images)
    joined = [
        embed(
            load_backbone(Artifact.open(finished_run / teacher.name)),
            pixels,
            path_contract.preprocessing,
        )
        for teacher in adaptor.manifest.teachers
    ]
    with torch.inference_mode():
        wanted = unit(load_adaptor(adaptor)(torch.cat(joined, 1)))
    np.testing.assert_allclose(
        OnnxRuntimeEngine(tmp_path / "path.onnx").run(images), wanted, atol=1e-5
    )
    targets = Artifact.open(finished_run / "targets").array("targets")
    np.testing.assert_allclose(wanted, targets[:8, 0], atol=1e-5)


def test_flip_sums_both_views(
    finished_run: Path, tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    contract, _ = export(finished_run / "student", tmp_path / "m.onnx", flip=True)
    assert contract.flip
    engine = OnnxRuntimeEngine(tmp_path / "m.onnx")
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    np.testing.assert_allclose(engine.run(images), engine.run(mirrored), atol=1e-5)


@pytest.mark.parametrize("name", ["student", "adaptor"])
def test_insightface_gives_the_same_direction(
    finished_run: Path, tmp_path: Path, images: NDArray[np.uint8], name: str
) -> None:
    model_zoo = pytest.importorskip("insightface.model_zoo")
    contract, _ = export(finished_run / name, tmp_path / "m.onnx", flavor="insightface")
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert FaceContract.from_metadata(metadata, source="m.onnx") == contract
    assert metadata[CONTRACT_ID_KEY] == contract.id
    model = model_zoo.get_model(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert (model.taskname, model.input_mean, model.input_std) == ("recognition", 127.5, 127.5)
    answers = model.get_feat([np.ascontiguousarray(face[..., ::-1]) for face in images])
    export(finished_run / name, tmp_path / "served.onnx")
    wanted = OnnxRuntimeEngine(tmp_path / "served.onnx").run(images)
    cosines = (answers * wanted).sum(1) / np.linalg.norm(answers, axis=1)
    assert cosines.min() >= 0.9999
    single = model.get_feat(np.ascontiguousarray(images[0][..., ::-1]))
    np.testing.assert_allclose(single, wanted[:1], atol=1e-4)


def test_insightface_refuses_what_it_cannot_express(run_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="without --flip"):
        export(run_copy / "student", tmp_path / "m.onnx", flavor="insightface", flip=True)
    overrides = ["preprocessing.mean=[0, 0, 0]", "preprocessing.std=[255, 255, 255]"]
    overrides += [f"{stage}.optimiser.epochs=1" for stage in ("teacher", "adaptor", "student")]
    overrides += [f"{stage}.optimiser.steps=[]" for stage in ("teacher", "adaptor", "student")]
    run_pipeline(load_recipe("smoke", overrides), run_copy, SilentReporter())
    with pytest.raises(ContractError, match="served flavor"):
        export(run_copy / "student", tmp_path / "m.onnx", flavor="insightface")
    contract, _ = export(run_copy / "student", tmp_path / "m.onnx")
    assert contract.std == (255, 255, 255)


@pytest.mark.parametrize("flavor", ["served", "insightface"])
def test_a_file_that_differs_from_torch_is_not_left(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavor: str
) -> None:
    write = mstkd_training.export.write_onnx

    def write_other(network: torch.nn.Module, path: Path) -> None:
        torch.manual_seed(0)
        fresh = load_backbone(Artifact.open(finished_run / "teacher_asian"))
        write(fresh, path)

    monkeypatch.setattr(mstkd_training.export, "write_onnx", write_other)
    with pytest.raises(ParityError, match="against torch"):
        export(finished_run / "teacher_african", tmp_path / "m.onnx", flavor=flavor)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_any_batch_size_runs(finished_run: Path, tmp_path: Path) -> None:
    export(finished_run / "student", tmp_path / "m.onnx", flavor="insightface")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for size in (1, 3, 8):
        (answer,) = session.run(None, {"input": np.zeros((size, 3, 112, 112), np.float32)})
        assert answer.shape == (size, 24)
