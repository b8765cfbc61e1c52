"""Compare training with the public code's way of the same steps, interleaved, medians of rounds.

`make bench-train` runs it. The public way, as METHOD describes it and written anew here: float32,
contiguous memory, one file a teacher and image, read one by one. Ours is the code of the stages.
On a GPU, IResNet-50 in training is measured against the chip's own matrix product instead.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in mstkd_training.cli

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mstkd_serve.bench.machine import describe_machine
from mstkd_serve.bench.rounds import in_turn
from mstkd_serve.contract import Preprocessing
from mstkd_training.backbones import build_backbone
from mstkd_training.block_store import BlockStore
from mstkd_training.embedding import embed, inference_copy, network_input, unit
from mstkd_training.loop import ALONE, Processes, Task
from mstkd_training.loop.engine import Engine
from mstkd_training.loop.order import Part
from mstkd_training.recipe import OptimiserSection, StudentSection
from mstkd_training.stages.student import student_step

TEACHERS, DIM, VIEWS = 4, 512, 2
Ways = dict[str, Callable[[], object]]


def public_step(backbone: str, batch: int) -> Callable[[], object]:
    """Return the public code's a-KD step: float32, contiguous, SGD, clipping."""
    network = build_backbone(backbone, DIM)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    pixels, targets = torch.randn(batch, 3, 112, 112), unit(torch.randn(batch, DIM))

    def run() -> None:
        loss = 10_000 * nn.functional.mse_loss(nn.functional.normalize(network(pixels)), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimiser.step()
        optimiser.zero_grad()

    return run


def our_step(backbone: str, batch: int, precision: str, processes: Processes) -> Ways:
    """Return the student stage's step by its name, from uint8 faces on."""
    section = OptimiserSection.model_validate(
        {"epochs": 1, "batch_size": batch, "learning_rate_at_512": 0.1, "precision": precision}
    )
    student = StudentSection(backbone=backbone, loss="a-kd", optimiser=section)
    network = build_backbone(backbone, DIM)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = {"backbone": network}
    task = Task(
        "student",
        nn.ModuleDict(parts),
        network,
        batch,
        lambda indices, flipped: (indices,),
        student_step(parts, Preprocessing(), student),
    )
    engine = Engine(task, section, 0, processes)
    engine.start_epoch(0)
    faces = torch.randint(0, 256, (batch, 112, 112, 3), dtype=torch.uint8)
    tensors = (faces, unit(torch.randn(batch, DIM)))
    part = Part(torch.arange(batch), torch.zeros(batch, dtype=torch.bool), 0, batch, last=True)
    steps = itertools.count()

    def run() -> None:
        engine.compute(0, next(steps), part, tensors)
        engine.update()

    return {f"ours, {precision}": run}


def reading(folder: Path, batch: int, images: int) -> Ways:
    """Return both ways of reading the four teachers' embeddings of a batch."""
    vectors = np.random.default_rng(0).standard_normal((images, VIEWS, TEACHERS * DIM), np.float32)
    for image, teacher in itertools.product(range(images), range(TEACHERS)):
        part = vectors[image, 0, teacher * DIM : (teacher + 1) * DIM]
        np.save(folder / f"{image}_{teacher}.npy", part)
    np.save(folder / "embeddings.npy", vectors)
    mapped = np.load(folder / "embeddings.npy", mmap_mode="r")
    chosen = np.random.default_rng(1).permutation(images)[:batch]
    views = np.zeros(batch, np.int64)

    def public() -> Tensor:
        return torch.stack(
            [
                torch.cat(
                    [
                        torch.from_numpy(np.load(folder / f"{image}_{teacher}.npy"))
                        for teacher in range(TEACHERS)
                    ]
                )
                for image in chosen
            ]
        )

    def ours() -> Tensor:
        return torch.from_numpy(mapped[chosen, views])

    if not torch.equal(public(), ours()):
        raise RuntimeError("the two ways of reading differ")
    return {"public way": public, "ours": ours}


def extraction(folder: Path, backbone: str, batch: int) -> Ways:
    """Return the ways of embedding a batch of views and storing them; ours takes two a face."""
    preprocessing = Preprocessing()
    contiguous = build_backbone(backbone, DIM).eval()
    network = build_backbone(backbone, DIM).eval()
    faces = torch.randint(0, 256, (batch, 112, 112, 3), dtype=torch.uint8)
    numbers = itertools.count()

    def public() -> None:
        with torch.no_grad():
            embeddings = contiguous(network_input(faces, preprocessing).contiguous())
        for row, vector in enumerate(embeddings.numpy()):
            np.save(folder / f"extracted{row}.npy", vector)

    def ours(precision: str) -> Callable[[], object]:
        fast = inference_copy(network, torch.device("cpu"), precision)

        def run() -> None:
            place = folder / f"store{next(numbers)}"
            store = BlockStore.open(place, "bench", (batch // 2, VIEWS, DIM), "float32")
            half = faces[: batch // 2]
            views = [embed(fast, view, preprocessing) for view in (half, half.flip(2))]
            store.write(torch.stack(views, 1).numpy())

        return run

    return {"public way": public, "ours, fp32": ours("fp32"), "ours, bf16": ours("bf16")}


def medians(ways: Ways, rounds: int, repeats: int = 1) -> dict[str, float]:
    """Return the median seconds of each way; every round runs each of them, after a warm-up."""

    def timed(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - started) / repeats

    found = in_turn({name: partial(timed, run) for name, run in ways.items()}, rounds + 1)
    return {name: statistics.median(seconds[1:]) for name, seconds in found.items()}


def add_rows(table: Table, what: str, found: dict[str, float], wanted: float) -> None:
    """Add one comparison; the public way comes first."""
    base = next(iter(found.values()))
    for name, seconds in found.items():
        ratio = "" if name == "public way" else f"{base / seconds:.1f} x"
        table.add_row(what, name, f"{1000 * seconds:,.2f} ms", ratio, f"{wanted:g} x")
        what = ""


def gpu_share(device: torch.device, backbone: str, batch: int, rounds: int) -> tuple[float, float]:
    """Return images/s of training in bf16, and its share of the measured peak of bf16 products."""
    run = next(iter(our_step(backbone, batch, "bf16", Processes(device=device)).values()))
    side = 8192 if device.type == "cuda" else 256
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def step() -> None:
        for _ in range(10):
            run()
        finish()

    def product() -> None:
        for _ in range(10):
            matrix @ matrix
        finish()

    found = medians({"step": step, "product": product}, rounds)
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    peak = 10 * 2 * side**3 / found["product"]
    rate = 10 * counter.get_total_flops() / found["step"]
    return 10 * batch / found["step"], rate / peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="iresnet34", help="student and teacher")
    parser.add_argument("--batch", type=int, default=64, help="images of a step")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--gpu-backbone", default="iresnet50", help="trained on a GPU")
    parser.add_argument("--gpu-batch", type=int, default=512, help="images of a step on a GPU")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    torch.manual_seed(0)
    table = Table("step", "way", "median", "faster", "wanted")
    for column in table.columns[2:]:
        column.justify = "right"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone, batch = options.backbone, options.batch
        steps: Ways = {"public way": public_step(backbone, batch)}
        steps |= our_step(backbone, batch, "fp32", ALONE) | our_step(backbone, batch, "bf16", ALONE)
        add_rows(table, "student step", medians(steps, options.rounds), 2.5)
        ways = reading(folder, batch, 10 * batch)
        add_rows(table, "reading embeddings", medians(ways, options.rounds, 20), 50)
        ways = extraction(folder, backbone, batch)
        add_rows(table, "extraction", medians(ways, options.rounds), 2)
    console.print(table)
    console.print(
        f"{backbone}, batches of {batch}, {torch.get_num_threads()} threads of "
        f"{describe_machine().processor}, "
        f"torch {torch.__version__}; medians of {options.rounds} interleaved rounds after a "
        "warm-up. Read: the embeddings of four teachers, 2,048 float32 a face, from the page cache."
    )
    if torch.cuda.is_available():
        device, network = torch.device("cuda"), options.gpu_backbone
        speed, share = gpu_share(device, network, options.gpu_batch, options.rounds)
        console.print(
            f"{torch.cuda.get_device_name()}: {network} in training, bf16, batches of "
            f"{options.gpu_batch}: {speed:,.0f} images/s, {100 * share:.0f} % of the rate of a "
            "bf16 matrix product of 8,192 x 8,192 measured in the same rounds"
        )


if __name__ == "__main__":
    main()
