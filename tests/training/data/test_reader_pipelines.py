"""A full pipeline from each layout of real files, and the test sets that go with it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mstkd_serve.errors import DataError, RecipeError
from mstkd_training.artifact import Artifact
from mstkd_training.cli import main
from mstkd_training.data.encoded import decode_face
from mstkd_training.data.sources.folders import write_folders
from mstkd_training.data.sources.labels import write_labels
from mstkd_training.data.sources.recordio import RecordSource, write_record_set
from mstkd_training.data.testset import write_rfw
from mstkd_training.data.verification_bin import (
    read_verification_bin,
    write_verification_bin,
)
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe_file import load_recipe
from mstkd_training.stages.data import read_faces
from mstkd_training.test_pairs import load_test_set

People = list[tuple[str, str, bytes]]

GROUPS = "data.groups=[Indian, Asian]"


def folders(root: Path, people: People) -> list[str]:
    write_folders(root, people)
    return ["data.source=folders"]


def labels(root: Path, people: People) -> list[str]:
    write_folders(root / "in", people)
    rows = [
        (str(path.relative_to(root)), path.parent.name, path.parent.parent.name)
        for path in root.glob("in/*/*/*.png")
    ]
    write_labels(root / "who.csv", rows)
    return ["data.source=labels", "data.labels=who.csv"]


def recordio(root: Path, people: People) -> list[str]:
    for group in ("Asian", "Indian"):
        mine = [(int(name[-1]), data) for of, name, data in people if of == group]
        write_record_set(root / group, mine)
    return ["data.source=recordio"]


@pytest.fixture(params=[folders, labels, recordio])
def overrides(request: pytest.FixtureRequest, tmp_path: Path, people: People) -> list[str]:
    return [*request.param(tmp_path / "faces", people), f"data.path={tmp_path}/faces", GROUPS]


def test_a_full_pipeline_runs_from_every_source(
    overrides: list[str], tmp_path: Path, people: People
) -> None:
    recipe = load_recipe(
        "smoke",
        [*overrides, "test={source: held_out, genuine_per_group: 9, impostor_per_group: 9}"],
    )
    student = run_pipeline(recipe, tmp_path / "run", SilentReporter())
    assert student.manifest.groups == ("Indian", "Asian")
    assert all(torch.isfinite(value).all() for value in student.weights().values())
    assert np.isfinite(list(student.manifest.metrics.values())).all()

    data = Artifact.open(tmp_path / "run" / "data")
    faces = read_faces(data)
    ordered = sorted(people, key=lambda one: one[0] != "Indian")
    wanted = np.stack([decode_face(encoded) for _, _, encoded in ordered])
    np.testing.assert_array_equal(faces.images[:], wanted)
    listing = (data.path / "identities.csv").read_text().splitlines()
    assert listing[0] == "number,name,group,images,held_out"
    assert len(listing) == 9
    assert {line.split(",")[2] for line in listing[1:5]} == {"Indian"}
    assert sum(line.endswith(",1") for line in listing) == 4

    tests = load_test_set(tmp_path / "run")
    held_out = {image.tobytes() for image in faces.images[faces.validation_rows()]}
    assert {image.tobytes() for image in tests.faces.images[:]} <= held_out
    same = tests.faces.identities[tests.pairs.first] == tests.faces.identities[tests.pairs.second]
    np.testing.assert_array_equal(same, tests.pairs.genuine)


def test_skipped_images_are_counted_listed_and_said(
    tmp_path: Path, people: People, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = folders(tmp_path / "faces", [*people, ("Asian", "asian_3", b"no image")])
    settings = [*arguments, f"data.path={tmp_path}/faces", GROUPS]
    words = [word for setting in settings for word in ("--set", setting)]
    command = ["mstkd-train", "pipeline", "--recipe", "smoke", "--out", f"{tmp_path}/run", *words]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 0
    path = tmp_path / "run" / "data" / "unreadable.csv"
    assert f"data: 1 images could not be read and were skipped; {path}" in capsys.readouterr().out
    assert Artifact.open(path.parent).manifest.metrics["images_unreadable"] == 1
    assert path.read_text().splitlines() == [
        "image,reason",
        f'{tmp_path}/faces/Asian/asian_3/asian_3_0004.jpg,"no JPEG, PNG, BMP or WebP image"',
    ]


def test_faces_without_labels_distil_a_student_of_given_teachers(
    tmp_path: Path, people: People, finished_run: Path
) -> None:
    for number, (group, _, encoded) in enumerate(people):
        path = tmp_path / "faces" / ("African" if group == "Indian" else group) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    settings = ["data.source=folders", f"data.path={tmp_path}/faces", "data.labelled=false"]
    recipe = load_recipe("smoke", [*settings, "data.validation.share=0"])
    names = ("teacher_asian", "teacher_african", "adaptor")
    use = {name: finished_run / name for name in names}
    student = run_pipeline(recipe, tmp_path / "run", SilentReporter(), use=use)
    assert student.manifest.inputs.keys() == {"data", "targets"}
    assert len(Artifact.open(tmp_path / "run" / "targets").array("targets")) == 24
    with pytest.raises(DataError, match=r"no identities to train on: give the teachers .* --use"):
        run_pipeline(recipe, tmp_path / "other", SilentReporter())


def test_an_empty_group_stops_before_anything_is_trained(tmp_path: Path, people: People) -> None:
    folders(tmp_path / "faces", [one for one in people if one[0] == "Asian"])
    (tmp_path / "faces" / "Indian").mkdir()
    recipe = load_recipe("smoke", ["data.source=folders", f"data.path={tmp_path}/faces", GROUPS])
    with pytest.raises(DataError, match="group 'Indian' has 0 images"):
        run_pipeline(recipe, tmp_path / "run", SilentReporter())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def rfw(root: Path, face: Callable[..., bytes]) -> list[str]:
    images = {("Asian", f"m.{n}", k): face(10 * n + k) for n in range(4) for k in (1, 2)}
    write_rfw(root, images, {"Asian": ["m.0 1 2", "m.1 1 2", "m.0 1 m.2 1", "m.3 2 m.1 1"]})
    return ["test.source=pairs", f"test.path={root}"]


def bins(root: Path, face: Callable[..., bytes]) -> list[str]:
    images = [face(10 * n + k) for n, k in ((0, 1), (0, 2), (1, 1), (1, 2))]
    images += [face(10 * n + k) for n, k in ((0, 1), (2, 1), (3, 2), (1, 1))]
    write_verification_bin(root / "a.bin", images, [True, True, False, False])
    return ["test.source=bin", f"test.files={{Asian: {root}/a.bin}}"]


@pytest.mark.parametrize("make", [rfw, bins])
def test_the_testset_command_writes_the_pairs_of_a_protocol(
    make: Callable[[Path, Callable[..., bytes]], list[str]],
    tmp_path: Path,
    run_copy: Path,
    face: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load_recipe("smoke", make(tmp_path / "source", face))
    run_pipeline(recipe, run_copy, SilentReporter())
    arguments = ["mstkd-train", "testset", str(run_copy), "--out", str(tmp_path / "t.npz")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 0
    with np.load(tmp_path / "t.npz", allow_pickle=False) as archive:
        assert archive["group_names"].tolist() == ["Asian"]
        assert archive["genuine"].tolist() == [True, True, False, False]
        assert archive["fold"].tolist() == [0, 2, 5, 7]
        shown = archive["images"][[archive["first"], archive["second"]]]
    wanted = [[1, 11, 1, 32], [2, 12, 21, 11]]
    for side in (0, 1):
        for place in range(4):
            np.testing.assert_array_equal(
                shown[side, place], decode_face(face(wanted[side][place]))
            )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=folders", r"data: source folders needs path; got"),
        ("data={source: labels, groups: [a], path: x}", "data: source labels needs labels"),
        ("data={groups: [a]}", "needs identities_per_group and images_per_identity"),
        ("test={source: bin}", "test: source bin needs files"),
        ("test={source: pairs}", "test: source pairs needs path"),
        ("data.source=tar", r"data\.source"),
        ("data.labelled=false", r"needs source=folders and validation\.share=0"),
    ],
)
def test_an_incomplete_source_is_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("smoke", [override])


def test_the_pages_example_writes_files_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[3] / "docs" / "training" / "data.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {})
    assert len(RecordSource(tmp_path / "set", ("Any",))) == 4
    assert read_verification_bin(tmp_path / "test.bin")[1].tolist() == [True, False]
