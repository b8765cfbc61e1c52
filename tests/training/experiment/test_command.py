from pathlib import Path

import pytest

from mstkd_training import cli
from mstkd_training.experiment import require_suitable
from mstkd_training.recipe_file import load_recipe


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    command = ("mstkd-train", "experiment", "specialised-vs-generalist", *arguments)
    monkeypatch.setattr("sys.argv", list(command))
    return cli.main()


def test_the_packaged_recipe_suits(capsys: pytest.CaptureFixture[str]) -> None:
    require_suitable(load_recipe("experiment"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "smoke"), "student.head is missing: the experiment trains EAF-KD students"),
        (("--recipe", "real-faces-smoke"), "data.source is labels: every seed of the experiment"),
        (
            ("--set", "test.source=held_out"),
            "test.source is held_out: every seed of the experiment",
        ),
        (("--set", "teacher.backbone.name=huge"), "teacher.backbone.name: 'huge' is unknown"),
        (("--set", "data.identities=5"), "data.identities: there is no such field"),
        (("--seeds", "0"), "--seeds"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_anything_is_written(
    options: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert _run(monkeypatch, "--out", str(out), *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()
