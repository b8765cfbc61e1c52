"""The readers of training data on real files."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mstkd_client import FaceClient
from mstkd_serve.repository import Target, build_repository
from mstkd_training.artifact import Artifact
from mstkd_training.data.testset import bins_test_set
from mstkd_training.data.verification_bin import read_verification_bin
from mstkd_training.embedding import embed
from mstkd_training.export import export
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import Bar, SilentReporter
from mstkd_training.recipe import Recipe
from mstkd_training.recipe_file import load_recipe
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.teacher import load_backbone
from mstkd_training.test_pairs import load_test_set

pytestmark = [pytest.mark.shared_data]


def test_a_genuine_verification_file_is_read(shared: Path) -> None:
    path = shared / "data" / "eval_bin" / "small_lfw.bin"
    encoded, same = read_verification_bin(path)
    assert len(encoded) == 20
    assert same.dtype == np.bool_
    assert len(same) == 10
    tests = bins_test_set({"LFW": path})
    assert tests.unreadable == ()
    pixels = tests.faces.images[:]
    assert pixels.shape == (20, 112, 112, 3)
    assert pixels.std(axis=(1, 2, 3)).min() > 20, "not photographs"
    # Skin is redder than blue: channels in the wrong order would turn this round.
    middle = pixels[:, 40:90, 36:76].mean(axis=(0, 1, 2))
    assert middle[0] > middle[2] + 10


class Losses(SilentReporter):
    """Keeps every loss that is shown, by stage."""

    def __init__(self) -> None:
        self.shown: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a bar that keeps epochs and losses."""
        kept = self.shown.setdefault(title, [])

        class Kept:
            def advance(self, faces: int, shown: Mapping[str, float] | None = None) -> None:
                if shown and "loss" in shown:
                    kept.append((shown["epoch"], shown["loss"]))

        yield Kept()

    def of(self, name: str, epoch: int) -> float:
        """Return the mean loss of an epoch, the last one is -1."""
        last = max(number for number, _ in self.shown[name])
        wanted = last if epoch == -1 else epoch
        return float(np.mean([loss for number, loss in self.shown[name] if number == wanted]))


@pytest.fixture(scope="module")
def london_run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Losses]:
    """The London faces through all stages."""
    folder = tmp_path_factory.mktemp("london")
    losses = Losses()
    run_pipeline(_recipe(shared), folder, losses)
    return folder, losses


def _recipe(shared: Path, *overrides: str) -> Recipe:
    path = f"data.path={shared}/data/faces_london"
    return load_recipe("real-faces-smoke", [path, *overrides])


def test_real_faces_run_through_every_stage_with_falling_loss(
    london_run: tuple[Path, Losses], shared: Path
) -> None:
    folder, losses = london_run
    faces = read_faces(Artifact.open(folder / "data"))
    assert faces.group_names == ("white", "black", "east_asian", "west_asian")
    assert len(faces) == 202
    assert Artifact.open(folder / "data").manifest.metrics["images_unreadable"] == 0
    with Image.open(shared / "data/faces_london/aligned/002_smiling.png") as image:
        assert (faces.images[:] == np.asarray(image)).all(axis=(1, 2, 3)).sum() == 1
    for name in ("teacher_white", "teacher_black", "adaptor", "student"):
        assert losses.of(name, -1) < 0.9 * losses.of(name, 1), name


def test_real_faces_train_an_eaf_kd_student_that_is_exported(
    london_run: tuple[Path, Losses], shared: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(london_run[0], folder)
    head = "student.head={scale: 16.0, margin_mean: 0.1, margin_std: 0.01}"
    losses = Losses()
    student = run_pipeline(_recipe(shared, "student.loss=eaf-kd", head), folder, losses)
    assert set(losses.shown) == {"student"}, "what was there was made again"
    assert losses.of("student", -1) < 0.9 * losses.of("student", 1)
    export(student.path, tmp_path / "student.onnx", flavor="served", flip=True)
    assert (tmp_path / "student.onnx").is_file()
    tests = load_test_set(folder)
    assert tests.faces.identity_count == 14 + 3 + 2 + 2


@pytest.mark.triton
def test_the_student_of_real_faces_is_served(
    london_run: tuple[Path, Losses],
    shared: Path,
    serve: Callable[..., AbstractContextManager[Any]],
    tmp_path: Path,
) -> None:
    student = Artifact.open(london_run[0] / "student")
    export(student.path, tmp_path / "student.onnx", flavor="served")
    build_repository(
        {"student": tmp_path / "student.onnx"}, tmp_path / "repository", target=Target.PYTHON
    )
    faces = read_faces(Artifact.open(london_run[0] / "data")).images[:20]
    with serve(tmp_path / "repository") as running, FaceClient(running.url) as client:
        vectors = client.embed(faces).vectors
    wanted = embed(load_backbone(student), torch.from_numpy(faces), _recipe(shared).preprocessing)
    # The server may compute in bf16.
    assert (vectors * wanted.numpy()).sum(axis=1).min() > 0.999
