import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact
from mstkd_training.export_adaptor import export_adaptor
from mstkd_training.manifest import Manifest
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import Recipe
from mstkd_training.recipe_file import load_recipe
from mstkd_training.stages.data import read_faces
from mstkd_training.test_pairs import load_test_set

_VALIDATED = (
    *("accuracy_Asian", "accuracy_African", "accuracy_mean", "accuracy_std", "score"),
    "epoch",
)
Weights = Callable[[Path], dict[str, torch.Tensor]]


class Recorder(SilentReporter):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    @property
    def ran(self) -> list[str]:
        return [line.split(":")[0] for line in self.lines if ": runs (" in line]


def test_every_stage_leaves_its_artifact(finished_run: Path, smoke: Recipe) -> None:
    names = [
        "data",
        "teacher_asian",
        "teacher_african",
        "embeddings",
        "adaptor",
        "targets",
        "student",
    ]
    for name in names:
        manifest = Artifact.open(finished_run / name).manifest
        assert manifest.name == name
    assert sorted(entry.name for entry in finished_run.iterdir()) == sorted(
        [*names, "logs", "recipe.yaml"]
    )
    student = Artifact.open(finished_run / "student", "student").manifest
    adaptor = Artifact.open(finished_run / "adaptor", "adaptor").manifest
    assert student.embedding_space == adaptor.embedding_space
    assert student.metrics.keys() == {"loss", "1-cos", *_VALIDATED}
    spaces = {Artifact.open(finished_run / n).manifest.embedding_space for n in names[1:3]}
    assert len(spaces | {adaptor.embedding_space}) == 3


def test_nothing_runs_twice(run_copy: Path, smoke: Recipe) -> None:
    recorder = Recorder()
    run_pipeline(smoke, run_copy, recorder)
    assert recorder.ran == []
    assert len(recorder.lines) == 7


def test_a_changed_section_reruns_its_stage_and_what_follows(run_copy: Path) -> None:
    recorder = Recorder()
    run_pipeline(load_recipe("smoke", ["adaptor.optimiser.epochs=4"]), run_copy, recorder)
    assert recorder.ran == ["adaptor", "targets", "student"]
    assert "adaptor: runs (recipe changed: optimiser.epochs 3 -> 4)" in recorder.lines
    assert "student: runs (its input targets is new)" in recorder.lines


def test_a_damaged_artifact_is_made_again(
    run_copy: Path, smoke: Recipe, weights_of: Weights
) -> None:
    wanted = weights_of(run_copy / "student")
    (run_copy / "student" / "weights.pt").write_bytes(b"")
    recorder = Recorder()
    run_pipeline(smoke, run_copy, recorder)
    assert recorder.ran == ["student"]
    assert "damaged or edited" in "".join(recorder.lines)
    _assert_equal(weights_of(run_copy / "student"), wanted)


def test_eaf_kd_adds_the_margin_loss(run_copy: Path) -> None:
    head = "student.head={scale: 16.0, margin_mean: 0.1, margin_std: 0.01}"
    run_pipeline(load_recipe("smoke", ["student.loss=eaf-kd", head]), run_copy, SilentReporter())
    metrics = Artifact.open(run_copy / "student").manifest.metrics
    assert metrics.keys() == {"loss", "1-cos", "distillation", "margin", *_VALIDATED}
    assert abs(metrics["loss"] - metrics["distillation"] - metrics["margin"]) < 1e-3


def test_generalists_replace_the_specialists_through_to_the_export(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    overrides = ["teacher.kind=generalist", "data.identities_per_group=6"]
    run_pipeline(load_recipe("smoke", overrides), folder, SilentReporter())
    adaptor = Artifact.open(folder / "adaptor").manifest
    names = ["teacher_generalist1", "teacher_generalist2"]
    assert [teacher.name for teacher in adaptor.teachers] == names
    assert [teacher.group for teacher in adaptor.teachers] == ["generalist1", "generalist2"]
    for name in names:
        manifest = Artifact.open(folder / name).manifest
        assert manifest.groups == ("Asian", "African")
        assert {"accuracy_Asian", "accuracy_African"} <= manifest.metrics.keys()
    export_adaptor(folder / "adaptor", tmp_path / "adaptor.onnx")
    inputs = [entry.name for entry in onnx.load(tmp_path / "adaptor.onnx").graph.input]
    assert inputs == ["embedding_generalist1", "embedding_generalist2"]


def test_given_teachers_are_used_instead_of_trained_ones(
    finished_run: Path, tmp_path: Path, smoke: Recipe, weights_of: Weights
) -> None:
    names = ("teacher_asian", "teacher_african")
    recorder = Recorder()
    use = {name: finished_run / name for name in names}
    run_pipeline(smoke, tmp_path / "run", recorder, use=use)
    assert recorder.ran == ["data", "embeddings", "adaptor", "targets", "student"]
    assert not any((tmp_path / "run" / name).exists() for name in names)
    _assert_equal(weights_of(tmp_path / "run" / "student"), weights_of(finished_run / "student"))


def test_watched_pairs_are_logged_and_have_no_say(
    finished_run: Path, tmp_path: Path, smoke: Recipe, weights_of: Weights
) -> None:
    run_pipeline(smoke, tmp_path, SilentReporter(), watched=load_test_set(finished_run))
    header = (tmp_path / "logs" / "student.csv").read_text().splitlines()[0].split(",")
    assert {"watched_accuracy_Asian", "watched_accuracy_std", "accuracy_Asian"} <= {*header}
    assert "watched" not in (tmp_path / "logs" / "adaptor.csv").read_text()
    for name in ("teacher_asian", "student"):
        manifest = Artifact.open(tmp_path / name).manifest
        assert manifest.id == Artifact.open(finished_run / name).manifest.id
        _assert_equal(weights_of(tmp_path / name), weights_of(finished_run / name))


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("teacher_asian", "teacher_african", "a teacher of African, needed is one of Asian"),
        ("teacher_asian", "adaptor", "holds a adaptor artifact, needed is teacher"),
        ("teacher_indian", "teacher_asian", "there is no such stage; use teacher_asian, "),
    ],
)
def test_teachers_that_do_not_fit_are_refused(
    finished_run: Path, tmp_path: Path, smoke: Recipe, name: str, source: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run_pipeline(smoke, tmp_path, SilentReporter(), use={name: finished_run / source})


def test_an_imported_artifact_is_not_trained_over(run_copy: Path, smoke: Recipe) -> None:
    teacher = run_copy / "teacher_asian"
    values = Manifest.load(teacher).model_dump()
    Manifest(**{**values, "id": "", "fingerprint": "x", "recipe": {"imported": "a.pth"}}).save(
        teacher
    )
    with pytest.raises(DataError, match=f"Say --use teacher_asian={teacher} to use it"):
        run_pipeline(smoke, run_copy, SilentReporter())
    recorder = Recorder()
    run_pipeline(smoke, run_copy, recorder, use={"teacher_asian": teacher})
    assert recorder.ran == ["embeddings", "adaptor", "targets", "student"]


def test_two_pipelines_do_not_share_a_folder(finished_run: Path, smoke: Recipe) -> None:
    handle = os.open(finished_run, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another pipeline is running here"):
            run_pipeline(smoke, finished_run, SilentReporter())
    finally:
        os.close(handle)


def test_test_pairs_are_deterministic_and_of_unseen_faces(finished_run: Path) -> None:
    tests, again = load_test_set(finished_run), load_test_set(finished_run)
    faces, pairs = tests.faces, tests.pairs
    np.testing.assert_array_equal(faces.images, again.faces.images)
    np.testing.assert_array_equal(pairs.first, again.pairs.first)
    assert faces.group_names == ("Asian", "African")
    same = faces.identities[pairs.first] == faces.identities[pairs.second]
    np.testing.assert_array_equal(same, pairs.genuine)
    seen = {image.tobytes() for image in read_faces(Artifact.open(finished_run / "data")).images}
    assert not seen & {image.tobytes() for image in faces.images}


def _assert_equal(actual: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(actual[key], value), key
