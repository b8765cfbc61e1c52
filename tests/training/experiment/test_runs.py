import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mstkd_training.artifact import Artifact
from mstkd_training.data.identity import sample_identities
from mstkd_training.data.rendered import render_faceset
from mstkd_training.data.testset import TestSet
from mstkd_training.embedding import unit
from mstkd_training.experiment import ARMS, Arm, Result, run_experiment, write_results
from mstkd_training.experiment import figures as figures_of
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import Recipe
from mstkd_training.recipe_file import load_recipe
from mstkd_training.stages.run import derive_seed
from mstkd_training.stages.teacher import load_backbone
from mstkd_training.test_pairs import test_set_of as pairs_of

Finished = tuple[Path, list[Result]]


class Recorder(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    @property
    def ran(self) -> list[str]:
        return [line.split(":")[0] for line in self.lines if ": runs (" in line]


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def test_every_arm_has_figures_on_every_seed(finished: Finished) -> None:
    _, results = finished
    assert len(ARMS) == 2 * 3 * 3
    assert [(result.seed, result.arm) for result in results] == [
        (seed, arm) for seed in (1, 2) for arm in _in_order_of_training()
    ]
    assert all(result.figures.groups.keys() == {"African", "Asian"} for result in results)


def test_arms_share_the_faces_and_the_teachers_of_a_seed(finished: Finished) -> None:
    folder, _ = finished
    for seed in ("seed_1", "seed_2"):
        found = sorted(path.parent for path in (folder / seed).rglob("manifest.json"))
        kinds = [Artifact.open(path).manifest.kind for path in found]
        counts = {kind: kinds.count(kind) for kind in kinds}
        assert counts == {
            "data": 1,
            "teacher": 2 * 2,
            "embeddings": 2,
            "adaptor": 2 * 3,
            "targets": 2 * 3,
            "student": 2 * 3 * 2,
        }
        data = Artifact.open(folder / seed / "data").manifest.id
        for kind, name in (("specialised", "teacher_asian"), ("generalist", "teacher_generalist1")):
            teacher = Artifact.open(folder / seed / kind / name).manifest
            assert teacher.inputs == {"data": data}
            for adaptor in ("sl", "dul", "dldpo"):
                place = folder / seed / kind / adaptor
                assert Artifact.open(place / "adaptor").manifest.teachers[0].id == teacher.id
                assert Artifact.open(place / "adaptor").manifest.backbone == adaptor
                targets = Artifact.open(place / "targets").manifest.id
                for loss in ("a-kd", "eaf-kd"):
                    student = Artifact.open(place / loss / "student").manifest
                    assert student.inputs == {"data": data, "targets": targets}
                    assert student.recipe["loss"] == loss


def test_a_finished_experiment_trains_nothing_again(
    finished: Finished, copy: Path, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.delattr(figures_of, "test_set_of")  # nor is anything measured again
    assert run_experiment(tiny, copy, 2, recorder) == finished[1]
    assert recorder.ran == []
    assert "seed 1 specialised/sl/a-kd, student: up to date" in recorder.lines


def test_another_adaptor_recipe_trains_no_teacher(copy: Path, settings: tuple[str, ...]) -> None:
    recorder = Recorder()
    recipe = load_recipe("smoke", [*settings, "adaptor.embedding_dim=20"])
    run_experiment(recipe, copy, 1, recorder)
    assert len(recorder.ran) == 2 * 3 * (1 + 1 + 2)
    assert not [line for line in recorder.ran if "teacher" in line or "data" in line]


def test_more_test_pairs_are_measured_without_training(
    finished: Finished, copy: Path, settings: tuple[str, ...]
) -> None:
    recorder = Recorder()
    recipe = load_recipe("smoke", [*settings, "test.genuine_per_group=18"])
    results = run_experiment(recipe, copy, 1, recorder)
    assert recorder.ran == []
    assert [r.figures for r in results] != [r.figures for r in finished[1] if r.seed == 1]


def test_damaged_figures_are_measured_again(finished: Finished, copy: Path, tiny: Recipe) -> None:
    (copy / "seed_1" / ARMS[0].folder / "figures.json").write_text("{")
    assert run_experiment(tiny, copy, 1, SilentReporter()) == finished[1][: len(ARMS)]


def test_a_killed_experiment_goes_on_to_the_same_figures(
    finished: Finished, tmp_path: Path, tiny: Recipe, settings: tuple[str, ...]
) -> None:
    folder = tmp_path / "killed"
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "mstkd_training.cli", "experiment"]
    command += ["specialised-vs-generalist", "--recipe", "smoke", "--seeds", "2"]
    with subprocess.Popen(
        [*command, "--out", str(folder), *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("seed 1 generalist/dul/a-kd, student: runs"):
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    recorder = Recorder()
    results = run_experiment(tiny, folder, 2, recorder)
    assert "seed 1 specialised/sl, adaptor: up to date" in recorder.lines
    assert results == finished[1]
    write_results(folder, results)
    names = ("runs.csv", "summary.csv", "differences.csv", "experiment.svg")
    for name in names:
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


def test_figures_are_those_of_the_students_on_the_test_pairs(
    finished: Finished, tiny: Recipe
) -> None:
    folder, results = finished
    place = folder / "seed_2"
    tests = pairs_of(tiny.model_copy(update={"seed": 2}), place)
    pixels = torch.from_numpy(tests.faces.images[:]).permute(0, 3, 1, 2)
    for arm in (arm for arm in ARMS if arm.student != "none"):
        backbone = load_backbone(Artifact.open(place / arm.folder / "student"))
        with torch.inference_mode():
            views = [backbone((v.float() - 127.5) / 127.5) for v in (pixels, pixels.flip(3))]
            vectors = unit(unit(views[0]) + unit(views[1])).double().numpy()
        figures = next(r.figures for r in results if (r.seed, r.arm) == (2, arm))
        assert figures.accuracy == pytest.approx(_best_mean_accuracy(vectors, tests))


def _best_mean_accuracy(vectors: NDArray[np.float64], tests: TestSet) -> float:
    pairs = tests.pairs
    scores = (vectors[pairs.first] * vectors[pairs.second]).sum(1)
    right = (scores >= np.sort(scores)[:, None]) == pairs.genuine
    groups = [100 * right[:, pairs.groups == group].mean(1) for group in range(2)]
    return float(np.mean(groups, 0).max())


def test_test_identities_are_none_of_training(finished: Finished, tiny: Recipe) -> None:
    folder, _ = finished
    seen = []
    for seed in (1, 2):
        own = tiny.model_copy(update={"seed": seed})
        data = Artifact.open(folder / f"seed_{seed}" / "data")
        trained, tested = derive_seed(seed, "data"), derive_seed(seed, "test")
        faces = render_faceset(
            own.data.groups, identities_per_group=6, images_per_identity=3, seed=trained
        )
        assert np.array_equal(data.array("images"), faces.images[:])
        for purpose in (trained, tested):
            seen += [sample_identities(g, 6, purpose).factors for g in own.data.groups]
        tests = render_faceset(
            own.data.groups, identities_per_group=6, images_per_identity=3, seed=tested
        )
        assert np.array_equal(pairs_of(own, folder).faces.images[:], tests.images[:])
    people = np.concatenate(seen)
    assert len(np.unique(people, axis=0)) == len(people)


def _in_order_of_training() -> list[Arm]:
    return sorted(ARMS, key=lambda arm: arm.teachers, reverse=True)
