import sys
from pathlib import Path

import numpy as np
import pytest

import mstkd_training.cli
from mstkd_serve.errors import ParityError
from mstkd_training.cli import main


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mstkd-train", *map(str, arguments)])
    return main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipeline", "--recipe", "demi", "--out", "D"], "neither a known recipe"),
        (["pipeline", "--recipe", "smoke", "--out", "D", "--set", "sede=1"], "sede: there is no"),
        (["pipeline"], "--out"),
        (["export", "D", "--out", "m.onnx"], "not an artifact"),
        (["export", "D", "--out", "m.onnx", "--flavor", "keras"], "keras"),
        (["testset", "D", "--out", "t.npz"], "no pipeline ran here"),
        (["trian"], "trian"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("mstkd-train: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_something_in_the_way_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("precious")
    assert _run(monkeypatch, "pipeline", "--recipe", "smoke", "--out", tmp_path) == 2
    assert "not an artifact" in capsys.readouterr().err
    assert (tmp_path / "data" / "mine.txt").read_text() == "precious"


def test_export_and_testset(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished_run: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "m.onnx"
    assert _run(monkeypatch, "export", finished_run / "student", "--out", out) == 0
    assert "equal to torch" in capsys.readouterr().out
    assert _run(monkeypatch, "testset", finished_run, "--out", tmp_path / "t.npz") == 0
    with np.load(tmp_path / "t.npz", allow_pickle=False) as archive:
        assert archive["images"].shape == (24, 112, 112, 3)
        assert len(archive["genuine"]) == len(archive["first"]) == 32


def test_status_of_failed_proof_and_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(error: BaseException) -> int:
        def raising(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(mstkd_training.cli, "export", raising)
        return _run(monkeypatch, "export", tmp_path, "--out", tmp_path / "m.onnx")

    assert fail(ParityError("m.onnx: the embeddings differ")) == 1
    assert fail(KeyboardInterrupt()) == 130
    assert "give the same command to go on" in capsys.readouterr().err


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "pipeline", "--help") == 0
    assert "--recipe" in capsys.readouterr().out


def test_no_command_shows_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch) == 2
    captured = capsys.readouterr()
    assert "pipeline" in captured.out + captured.err
    assert "mstkd-train: " not in captured.err
