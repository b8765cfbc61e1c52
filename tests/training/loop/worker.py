"""A training that tests start as processes of their own, alone or under torchrun.

Its network is float64, so that rounding hides no mistake, unless --float32 is said.
"""

import argparse
import os
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

from mstkd_training.backbones import build_backbone
from mstkd_training.checkpoint import Checkpoint
from mstkd_training.heads import build_head
from mstkd_training.loop import LoopSettings, StepResult, Task, classified, fit, join_processes
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import HeadSection, OptimiserSection, SelectionSection

SAMPLES, CLASSES, DIM = 45, 5, 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--kill-rank", type=int, default=0)
    parser.add_argument("--every", type=int)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--separate-statistics", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtype = torch.float32 if options.float32 else torch.float64
    with join_processes("cpu") as processes:
        torch.manual_seed(0)
        images = torch.rand(SAMPLES, 3, 112, 112).to(dtype)
        labels = torch.arange(SAMPLES) % CLASSES
        backbone = nn.Sequential(build_backbone("compact", DIM), nn.Dropout(0.2)).to(dtype)
        head = build_head(HeadSection(scale=16.0, margin_mean=0.2, margin_std=0.1), DIM, CLASSES)
        head.to(dtype)
        steps = 0

        def load(indices: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
            pixels = torch.where(
                flipped[:, None, None, None], images[indices].flip(3), images[indices]
            )
            return pixels, labels[indices]

        def step(pixels: Tensor, wanted: Tensor) -> StepResult:
            nonlocal steps
            steps += 1
            if (steps, processes.rank) == (options.kill_at, options.kill_rank):
                os.kill(os.getpid(), signal.SIGKILL)
            return classified(head(backbone(pixels), wanted), wanted)

        figures = fit(
            Task(
                "net",
                nn.ModuleDict({"backbone": backbone, "head": head}),
                backbone,
                SAMPLES,
                load,
                step,
            ),
            section=OptimiserSection(
                epochs=2,
                batch_size=12,
                learning_rate_at_512=4.0,
                steps=(1,),
                accumulate=options.accumulate,
                sync_batch_norm=not options.separate_statistics,
            ),
            selection=SelectionSection(),
            seed=3,
            checkpoint=Checkpoint(options.out / "c.pt", "f"),
            reporter=SilentReporter(),
            processes=processes,
            settings=LoopSettings(checkpoint_steps=options.every),
            logs=options.out / "logs",
        )
        if processes.first:
            state = {**backbone.state_dict(), "head": head.state_dict()["weight"]}
            torch.save(state, options.out / "weights.pt")
            (options.out / "loss.txt").write_text(repr(figures["loss"]))


if __name__ == "__main__":
    main()
