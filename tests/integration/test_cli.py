"""`mstkd-serve` as a person types it, wrong on purpose: one line, no traceback, status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from mstkd_serve import __version__


def mstkd_serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mstkd_serve.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def source(tmp_path, recogniser) -> Path:
    return recogniser(tmp_path / "source.onnx")


def test_version():
    assert mstkd_serve("--version").stdout.strip() == __version__


def test_graph_build_check_one_after_the_other(tmp_path, source):
    served, repository = tmp_path / "served.onnx", tmp_path / "repository"
    done = mstkd_serve("graph", source, "--out", served, "--contract", "arcface", "--flip")
    assert done.returncode == 0, done.stderr
    assert "16-d" in done.stdout
    done = mstkd_serve("repo", "build", "--student", served, "--out", repository)
    assert done.returncode == 0, done.stderr
    done = mstkd_serve("repo", "check", repository)
    assert done.returncode == 0
    assert "in order" in done.stdout
    assert '\\"flip\\":true' in (repository / "student" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["graph", "{source}", "--out", "{tmp}/o.onnx"], "--contract arcface"),
        (["graph", "{source}", "--out", "{tmp}/o.onnx", "--flip"], "--contract arcface"),
        (["graph", "{tmp}/none.onnx", "--out", "{tmp}/o.onnx"], "no such file"),
        (["graph", "{tmp}/none.onnx", "--out", "{tmp}/o.onnx", "--flip"], "no such file"),
        (["graph", "{source}", "--out", "{tmp}/o.onnx", "--contract", "vgg"], "known contract"),
        (["graph", "{source}", "--out", "/proc/o.onnx", "--contract", "arcface"], "/proc/"),
        (["repo", "build", "--student", "{source}", "--out", "/proc/r"], "/proc/"),
        (["repo", "check", "{tmp}/none"], "no such folder"),
        (["repo", "build", "--student", "{source}", "--out", "{tmp}"], "exists already"),
        (["repo", "build", "--student", "{source}", "--out", "{tmp}/r", "--model", "x"], "NAME="),
        (
            ["repo", "build", "--student", "{source}", "--out", "{tmp}/r", "--max-batch-size", "0"],
            "--max-batch-size",
        ),
        (
            ["repo", "build", "--student", "{source}", "--out", "{tmp}/r", "--target", "x"],
            "openvino",
        ),
        (["up", "--model-repo", "{tmp}/none"], "no such folder"),
        (["triton", "install", "--runtime", "tensorflow"], "onnxruntime-gpu, openvino"),
        (
            ["triton", "install", "--runtime", "onnxruntime", "--runtime", "onnxruntime-gpu"],
            "choose one",
        ),
        (["doctor", "--url", "127.0.0.1:9"], "no Triton server answers"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, source, arguments, message):
    filled = [text.format(source=source, tmp=tmp_path) for text in arguments]
    done = mstkd_serve(*filled)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
