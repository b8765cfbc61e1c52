"""`mstkd-serve evaluate` and `calibrate` as a person types them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mstkd_serve.contract import Preprocessing
from mstkd_serve.graph import build_served_graph


def mstkd_serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mstkd_serve.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def scores(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "scores.csv"
    rows = [
        f"{'ab'[index // 2 % 2]},{index % 2},{rng.normal(0.6 * (index % 2), 0.15):.6f}"
        for index in range(8000)
    ]
    path.write_text("\n".join(["group,genuine,score", *rows]) + "\n")
    return path


def test_evaluate_then_calibrate(tmp_path, scores, recogniser):
    out = tmp_path / "report"
    done = mstkd_serve("evaluate", "scores", scores, "--out", out, "--bootstrap", 50)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"metrics.json", "report.html", "MODEL_CARD.md"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"accuracy", "accuracy_10fold", "fmr", "fnmr", "tar_at_far", "eer", "auc", "genuine",
            "impostor"} <= metrics["groups"]["a"].keys()  # fmt: skip
    assert {"threshold", "accuracy_mean", "std", "ser", "eq_odds", "dem_par", "fdr", "ir", "garbe",
            "nist_fmr_max_geomean"} <= metrics["global"].keys()  # fmt: skip

    again = mstkd_serve(
        *("evaluate", "scores", scores, "--out", tmp_path / "other", "--bootstrap", 0),
        *("--compare", out / "metrics.json", "--threshold", "0.3", "--ddof", 1),
    )
    assert again.returncode == 0, again.stderr
    other = json.loads((tmp_path / "other" / "metrics.json").read_text())
    assert other["global"]["threshold"] == 0.3
    assert other["global"]["threshold_source"] == "given"
    assert other["global"]["std_ddof"] == 1
    assert "Against other models" in (tmp_path / "other" / "report.html").read_text()

    model = tmp_path / "model.onnx"
    build_served_graph(recogniser(tmp_path / "s.onnx"), model, preprocessing=Preprocessing())
    done = mstkd_serve("calibrate", out / "metrics.json", "--model", model, "--fmr", "1e-2")
    assert done.returncode == 0, done.stderr
    assert "worst group" in done.stdout
    done = mstkd_serve("repo", "build", "--student", model, "--out", tmp_path / "repository")
    assert done.returncode == 0, done.stderr
    config = (tmp_path / "repository" / "student" / "config.pbtxt").read_text()
    assert "mstkd.calibration" in config


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, scores):
    text = scores.read_text().replace("\na,", "\n[/red],").replace("\nb,", "\n[bold]b,")
    odd = tmp_path / "[bold] odd.csv"
    odd.write_text(text)
    done = mstkd_serve("evaluate", "scores", odd, "--out", tmp_path / "[red]", "--bootstrap", 0)
    assert done.returncode == 0, done.stderr
    assert "[/red]" in done.stdout
    assert "[red]/report.html" in done.stdout
    assert "[bold]b" in done.stdout
    done = mstkd_serve("evaluate", "scores", tmp_path / "[none]", "--out", tmp_path / "o")
    assert done.returncode == 2
    assert "[none]: no such file" in done.stderr


def test_gate_decides_the_exit_status(tmp_path, scores):
    gate = tmp_path / "gate.yaml"
    arguments = ("evaluate", "scores", scores, "--out", tmp_path / "o", "--gate", gate)
    gate.write_text("groups.*.accuracy: {min: 60}")
    done = mstkd_serve(*arguments)
    assert done.returncode == 0, done.stderr
    assert "every limit holds" in done.stdout
    gate.write_text("groups.*.accuracy: {min: 99.9}")
    done = mstkd_serve(*arguments)
    assert done.returncode == 1
    assert "gate: groups.a.accuracy is" in done.stdout
    assert (tmp_path / "o" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "scores", "{tmp}/none.csv", "--out", "{tmp}/o"], "no such file"),
        (["evaluate", "scores", "{scores}", "--out", "/proc/o"], "/proc/"),
        (["evaluate", "scores", "{scores}", "--out", "{tmp}/o", "--threshold", "nan"], "finite"),
        (["evaluate", "scores", "{scores}", "--out", "{tmp}/o", "--gate", "{tmp}/g"], "{tmp}/g"),
        (["evaluate", "scores", "{scores}", "--out", "{tmp}/o", "--compare", "{tmp}/m"], "{tmp}/m"),
        (
            ["evaluate", "scores", "{scores}", "--out", "{tmp}/o", "--training-identities",
             "{scores}"],
            "names no identities",
        ),
        (["evaluate", "pairs", "{tmp}/none.csv", "--out", "{tmp}/o", "--url", "x:1"], "no such"),
        (["evaluate", "pairs", "{scores}", "--out", "{tmp}/o"], "either --model"),
        (["calibrate", "{tmp}/none", "--model", "{tmp}/m.onnx", "--fmr", "1e-3"], "{tmp}/none"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(tmp_path, scores, arguments, message):
    names = {"tmp": tmp_path, "scores": scores}
    done = mstkd_serve(*(text.format(**names) for text in arguments))
    assert done.returncode == 2
    assert message.format(**names) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()
