"""Margins are those of the whole batch, however it is spread over processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mstkd_training.heads.statistic import batch_moments

PROGRAM = """
import sys, torch
from mstkd_training.heads import build_head
from mstkd_training.heads.noise import samples_of_a_batch
from mstkd_training.recipe.networks import HeadSection
rank, place = int(sys.argv[1]), sys.argv[2]
if rank >= 0:
    torch.distributed.init_process_group("gloo", f"file://{place}/store", rank=rank, world_size=2)
found = {}
for name in ("curricularface", "adaface", "elastic-arcface", "elastic-arcface-plus"):
    torch.manual_seed(0)
    std = 0.1 if "elastic" in name else None
    head = build_head(HeadSection(name=name, scale=64.0, margin_mean=0.4, margin_std=std), 8, 3)
    vectors, labels = torch.randn(7, 8) * 5, torch.arange(7) % 3
    mine = {-1: slice(0, 7), 0: slice(0, 3), 1: slice(3, 7)}[rank]
    for step in range(3):
        with samples_of_a_batch((step,), 7, mine.start):
            logits = head(vectors[mine], labels[mine])
    found[name] = [logits.detach(), dict(head.named_buffers())]
torch.save(found, f"{place}/{rank}.pt")
if rank >= 0:
    torch.distributed.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)])
        for rank in (-1, 0, 1)
    ]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    one, first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (-1, 0, 1))
    for name, (logits, statistics) in one.items():
        parts = torch.cat([first[name][0], second[name][0]])
        torch.testing.assert_close(parts, logits, atol=1e-4, rtol=0)
        assert name.startswith("elastic") != bool(statistics)
        for key, value in statistics.items():
            torch.testing.assert_close(first[name][1][key], value, atol=1e-6, rtol=1e-6)
            assert torch.equal(first[name][1][key], second[name][1][key])


def test_moments_equal_torchs() -> None:
    torch.manual_seed(0)
    values = torch.randn(1000) * 3 + 20
    mean, variance, count = batch_moments(values)
    assert mean.item() == pytest.approx(values.double().mean().item())
    assert variance.item() == pytest.approx(values.double().var().item())
    assert count == 1000
    mean, variance, count = batch_moments(torch.tensor([2.5]))
    assert (mean, variance, count) == (2.5, 0, 1)
