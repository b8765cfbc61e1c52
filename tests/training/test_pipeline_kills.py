"""Pipelines that are killed, interrupted, or spread over processes."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from mstkd_training.artifact import Artifact
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe_file import load_recipe

Weights = Callable[[Path], dict[str, torch.Tensor]]
NETWORKS = ("teacher_asian", "teacher_african", "adaptor", "student")
PIPELINE = ("-m", "mstkd_training.cli", "pipeline", "--recipe", "smoke", "--device", "cpu")


def test_a_pipeline_killed_in_every_stage_ends_with_the_same_weights(
    finished_run: Path, tmp_path: Path, weights_of: Weights
) -> None:
    folder = tmp_path / "killed"
    script = Path(__file__).parent / "killed_pipeline.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [run.splitlines() for run in done.stdout.split("-- until ")[1:]]
    for number, run in enumerate(runs):
        finished = [line for line in run if line.endswith(": up to date")]
        assert len(finished) == max(0, number - 1)
    for stage, line in (
        ("embeddings", r"goes on after image \d+ of \d+"),
        ("adaptor", r"goes on in epoch 2 of 3, after step \d"),
        ("student", r"goes on in epoch 2 of 3, after step \d"),
    ):
        assert re.search(f"^{stage}: {line}$", done.stdout, re.MULTILINE), stage
    for name in NETWORKS:
        assert_equal(weights_of(folder / name), weights_of(finished_run / name))
    assert not list(folder.glob(".*")), "leftovers"


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(run_copy: Path) -> None:
    long = ["student.optimiser.epochs=2000", "student.optimiser.steps=[]"]
    process = subprocess.Popen(
        [sys.executable, *PIPELINE, "--out", str(run_copy), *(f"--set={item}" for item in long)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = run_copy / ".student.checkpoint.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "its state is kept" in out
    assert "give the same command to go on" in err
    assert "Traceback" not in err
    lines: list[str] = []

    class Stopping(SilentReporter):
        def message(self, text: str) -> None:
            lines.append(text)
            if "goes on" in text:
                raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run_pipeline(load_recipe("smoke", long), run_copy, Stopping())
    assert lines[-1].startswith("student: goes on")


def test_torchrun_spreads_a_pipeline_over_processes(finished_run: Path, tmp_path: Path) -> None:
    """That the weights are equal is shown in `loop/test_processes.py`, without float32's noise."""
    folder = tmp_path / "two"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(
        [sys.executable, *torchrun, *PIPELINE, "--out", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("student: runs (no artifact yet)") == 1
    losses = [first_loss(run / "logs" / "teacher_asian.csv") for run in (folder, finished_run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert Artifact.open(folder / "student").manifest.kind == "student"
    assert not list(folder.glob(".*")), "leftovers"


def first_loss(log: Path) -> float:
    with log.open(newline="") as stream:
        return float(next(csv.DictReader(stream))["loss"])


def assert_equal(actual: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(actual[key], value), key
