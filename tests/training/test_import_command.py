import sys
from pathlib import Path

import pytest
import torch

from mstkd_training.adaptors import build_adaptor
from mstkd_training.artifact import Artifact
from mstkd_training.backbones import build_backbone
from mstkd_training.cli import main
from mstkd_training.export import export


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with a teacher, a student and a dual-layer adaptor as MST-KD saves them."""
    folder = tmp_path / "published"
    folder.mkdir()
    torch.manual_seed(0)
    backbone = build_backbone("iresnet18", 8).state_dict()
    torch.save({f"module.{key}": value for key, value in backbone.items()}, folder / "teacher.pth")
    torch.save({key: value.half() for key, value in backbone.items()}, folder / "student.pth")
    adaptor = build_adaptor("dul", 8, 8).state_dict()
    unused = {"key_vector": torch.zeros(128, 8), "value_vector": torch.zeros(128, 8)}
    torch.save(adaptor | unused, folder / "adaptor.pth")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mstkd-train", "import", *map(str, arguments)])
    return main()


def test_teacher_adaptor_and_student_are_imported_and_told_about(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    published: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    common = ("--format", "mst-kd", "--out", out)
    backbone = ("--network", "iresnet18", *common)
    teacher = ("--role", "teacher", "--group", "Nordic", *backbone)
    assert run(monkeypatch, published / "teacher.pth", *teacher) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "teacher iresnet18, 8-d. Missing in the file: none. Left over: none." in told
    adaptor = ("--role", "adaptor", "--network", "dul", "--teacher", out / "teacher_nordic")
    assert run(monkeypatch, published / "adaptor.pth", *adaptor, *common) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Left over: key_vector, value_vector." in told
    student = ("--role", "student", "--adaptor", out / "adaptor")
    assert run(monkeypatch, published / "student.pth", *student, *backbone) == 0
    artifacts = [Artifact.open(out / name) for name in ("teacher_nordic", "adaptor", "student")]
    assert [entry.manifest.kind for entry in artifacts] == ["teacher", "adaptor", "student"]
    spaces = [export(entry.path, tmp_path / "m.onnx")[0].embedding_space for entry in artifacts[1:]]
    assert spaces[0] == spaces[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--role", "teacher"], "a teacher needs its group"),
        (["--role", "student", "--group", "Asian"], "has no --group"),
        (["--role", "student", "--teacher", "x"], "--teacher goes with --role adaptor only"),
        (["--role", "adaptor", "--group", "Asian"], "do not go with --role adaptor"),
        (["--role", "adaptor"], "network 'iresnet18' does not go with this role"),
        (["--role", "pupil"], "pupil"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    published: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    common = ("--format", "mst-kd", "--network", "iresnet18", "--out", tmp_path / "run")
    assert run(monkeypatch, published / "teacher.pth", *common, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("mstkd-train: ")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
