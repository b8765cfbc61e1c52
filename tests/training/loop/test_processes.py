"""Several processes, over gloo, learn what one process learns.

Sums over processes are added in another order than one process adds them. In float64 the weights
differ by less than 1e-9 of their size (or 1e-11) after eight steps at a learning rate of about
0.1; in float32, whose roundings these steps amplify, by less than 1e-2 (or 2e-3). Anything that
depends on the number of processes, such as separate statistics, is far beyond both.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mstkd_serve.errors import RecipeError
from mstkd_training.loop import join_processes

WORKER = Path(__file__).parent / "worker.py"
Weights = dict[str, torch.Tensor]


def run(out: Path, processes: int, *options: str) -> int:
    """Start what torchrun would start, without its own seconds; return the first failure."""
    out.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(out), *options],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=None if "--kill-at" not in options else subprocess.DEVNULL,
        )
        for rank in range(processes)
    ]
    deadline = time.monotonic() + 120
    try:
        while any(worker.poll() is None for worker in workers) and not any(
            worker.poll() for worker in workers
        ):
            assert time.monotonic() < deadline, "the processes wait for each other"
            time.sleep(0.05)
        status = next((worker.poll() for worker in workers if worker.poll()), 0) or 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert status == 0 or "--kill-at" in options
    return status


def weights(out: Path) -> Weights:
    state: Weights = torch.load(out / "weights.pt", weights_only=True)
    return state


def largest_excess(
    actual: Weights, wanted: Weights, relative: float = 1e-9, absolute: float = 1e-11
) -> float:
    """The largest difference in units of the tolerance; at most 1 is equal."""
    return max(
        float(((actual[key] - value).abs() / (absolute + relative * value.abs())).max())
        for key, value in wanted.items()
        if value.is_floating_point()
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    out = tmp_path_factory.mktemp("alone")
    run(out, 1)
    return weights(out)


def test_two_processes_equal_one_margins_dropout_and_statistics_included(
    alone: Weights, tmp_path: Path
) -> None:
    run(tmp_path, 2)
    assert largest_excess(weights(tmp_path), alone) < 1


def test_separate_statistics_are_told_apart_by_this_tolerance(
    alone: Weights, tmp_path: Path
) -> None:
    run(tmp_path, 2, "--separate-statistics")
    assert largest_excess(weights(tmp_path), alone, 1e-2, 2e-3) > 10


def test_a_run_of_two_processes_goes_on_as_one_and_the_other_way_round(
    alone: Weights, tmp_path: Path
) -> None:
    assert run(tmp_path / "shrunk", 2, "--kill-at", "6", "--kill-rank", "1", "--every", "1") != 0
    run(tmp_path / "shrunk", 1)
    assert largest_excess(weights(tmp_path / "shrunk"), alone) < 1
    assert run(tmp_path / "grown", 1, "--kill-at", "3", "--every", "1") != 0
    run(tmp_path / "grown", 2)
    assert largest_excess(weights(tmp_path / "grown"), alone) < 1


@pytest.mark.slow
def test_a_killed_run_of_two_processes_ends_with_identical_weights(tmp_path: Path) -> None:
    run(tmp_path / "whole", 2, "--accumulate", "2")
    options = ("--accumulate", "2", "--every", "1")
    assert run(tmp_path / "killed", 2, "--kill-at", "11", *options) != 0
    run(tmp_path / "killed", 2, *options)
    wanted = weights(tmp_path / "whole")
    for key, value in weights(tmp_path / "killed").items():
        assert torch.equal(value, wanted[key]), key


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_an_absent_device_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RecipeError, match="--device"), join_processes(device):
        pass
