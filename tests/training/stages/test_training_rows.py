"""What each stage trains on: the rows of the training identities, with what belongs to each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mstkd_training.artifact import Artifact
from mstkd_training.data.faceset import FaceSet
from mstkd_training.loop import Task
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import OptimiserSection, Recipe, SelectionSection
from mstkd_training.recipe_file import load_recipe
from mstkd_training.stages.adaptor import train_adaptor
from mstkd_training.stages.data import make_data, read_faces
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.student import train_student
from mstkd_training.stages.teacher import plan_teachers, train_teacher


class StoppedError(Exception):
    """Carries the task that was about to be trained."""


class Stopping(StageRun):
    def fit(
        self, task: Task, section: OptimiserSection, selection: SelectionSection
    ) -> dict[str, float]:
        raise StoppedError(task)


def samples_of(make: Callable[[], object], flipped: bool) -> tuple[torch.Tensor, ...]:
    """Return all samples that a stage would train on."""
    try:
        make()
    except StoppedError as stopped:
        task: Task = stopped.args[0]
        count = task.samples
        return task.load(torch.arange(count), torch.full((count,), flipped))
    raise AssertionError("nothing was trained")


def stopping(recipe: Recipe, folder: Path, name: str, *inputs: Artifact) -> Stopping:
    return Stopping(
        *("teacher", name, folder, recipe.teacher, inputs, recipe.seed, recipe.preprocessing),
        SilentReporter(),
    )


def mirrored(faces: FaceSet, rows: np.ndarray, flipped: bool) -> np.ndarray:
    images = faces.images[rows]
    return images[:, :, ::-1] if flipped else images


@pytest.mark.parametrize("flipped", [False, True])
def test_a_teacher_trains_on_its_groups_training_identities(
    finished_run: Path, smoke: Recipe, tmp_path: Path, flipped: bool
) -> None:
    data = Artifact.open(finished_run / "data")
    faces = read_faces(data)
    plan = plan_teachers(smoke.teacher, faces.group_names)[1]
    run = stopping(smoke, tmp_path, plan.name, data)
    pixels, labels = samples_of(lambda: train_teacher(run, data, smoke.teacher, plan), flipped)
    rows = faces.training_rows("African")
    np.testing.assert_array_equal(pixels, mirrored(faces, rows, flipped))
    np.testing.assert_array_equal(labels, faces.class_labels(rows))


def test_generalists_train_on_disjoint_parts_of_all_training_identities(tmp_path: Path) -> None:
    recipe = load_recipe("smoke", ["teacher.kind=generalist", "data.identities_per_group=8"])
    run = StageRun(
        *("data", "data", tmp_path, recipe.data, (), recipe.seed, recipe.preprocessing),
        SilentReporter(),
    )
    data = make_data(run, recipe.data)
    faces = read_faces(data)
    row_of = {image.tobytes(): row for row, image in enumerate(faces.images[:])}
    seen: list[set[int]] = []
    for plan in plan_teachers(recipe.teacher, faces.group_names):
        stop = stopping(recipe, tmp_path, plan.name, data)
        pixels, labels = samples_of(
            lambda stop=stop, plan=plan: train_teacher(stop, data, recipe.teacher, plan),
            flipped=False,
        )
        rows = np.array([row_of[image.numpy().tobytes()] for image in pixels])
        np.testing.assert_array_equal(labels, faces.class_labels(rows))
        assert len(set(faces.groups[rows])) == 2
        seen.append({int(row) for row in rows})
    people = [set(faces.identities[list(rows)]) for rows in seen]
    assert not people[0] & people[1]
    assert seen[0] | seen[1] == set(faces.training_rows().tolist())


@pytest.mark.parametrize("flipped", [False, True])
def test_the_adaptor_trains_on_the_embeddings_of_training_identities(
    finished_run: Path, smoke: Recipe, tmp_path: Path, flipped: bool
) -> None:
    data, embeddings = (Artifact.open(finished_run / name) for name in ("data", "embeddings"))
    run = stopping(smoke, tmp_path, "adaptor", data, embeddings)
    vectors, labels = samples_of(
        lambda: train_adaptor(run, data, embeddings, smoke.adaptor), flipped
    )
    faces = read_faces(data)
    rows = faces.training_rows()
    np.testing.assert_array_equal(vectors, embeddings.array("embeddings")[rows, int(flipped)])
    np.testing.assert_array_equal(labels, faces.class_labels(rows))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("loss", ["a-kd", "eaf-kd"])
def test_the_student_sees_each_training_face_with_the_target_of_the_same_face_and_view(
    finished_run: Path, tmp_path: Path, loss: str, flipped: bool
) -> None:
    head = "student.head={scale: 16.0, margin_mean: 0.1, margin_std: 0.01}"
    recipe = load_recipe("smoke", [f"student.loss={loss}", *([head] if loss == "eaf-kd" else [])])
    data, targets = (Artifact.open(finished_run / name) for name in ("data", "targets"))
    run = stopping(recipe, tmp_path, "student", data, targets)
    pixels, wanted, *labels = samples_of(
        lambda: train_student(run, data, targets, recipe.student), flipped
    )
    faces = read_faces(data)
    rows = faces.training_rows()
    np.testing.assert_array_equal(pixels, mirrored(faces, rows, flipped))
    np.testing.assert_array_equal(wanted, targets.array("targets")[rows, int(flipped)])
    assert len(labels) == (loss == "eaf-kd")
    for mine in labels:
        np.testing.assert_array_equal(mine, faces.class_labels(rows))
