"""Compare the served path with the same model in process, interleaved, medians of several rounds.

`make bench` runs it: a backbone with random weights, ONNX Runtime fp32 in process against the same
file served by a real tritonserver over gRPC on the same machine.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mstkd_client import FaceClient
from mstkd_serve.contract import Preprocessing
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.repository import Target, build_repository
from mstkd_serve.triton import Ports, TritonServer, locate
from mstkd_training.backbones import build_backbone
from mstkd_training.export_network import write_onnx

_BATCHES = (1, 8, 32)


def write_backbone(name: str, path: Path) -> None:
    """Export a backbone with random weights, 512-d."""
    torch.manual_seed(0)
    write_onnx(build_backbone(name, 512).eval(), path)


def seconds_of(
    run: Callable[[NDArray[np.uint8]], object], chunk: NDArray[np.uint8], least: float
) -> float:
    """Repeat a batch for at least some seconds and return the seconds of one."""
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < least:
        run(chunk)
        count += 1
    return elapsed / count


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="iresnet18", help="a backbone's name")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of one measurement")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    faces = np.random.default_rng(0).integers(0, 256, (max(_BATCHES), 112, 112, 3), np.uint8)
    times: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, repository = Path(folder, "backbone.onnx"), Path(folder, "repository")
        write_backbone(options.backbone, source)
        build_repository(
            {"student": source}, repository, target=Target.PYTHON, preprocessing=Preprocessing()
        )
        started = time.perf_counter()
        with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
            server.wait_ready(120)
            ready = time.perf_counter() - started
            engine = OnnxRuntimeEngine(repository / "student" / "1" / "model.onnx")
            with FaceClient(server.url) as client:
                ways: dict[str, Callable[[NDArray[np.uint8]], object]] = {
                    "in process": engine.run,
                    "served": client.embed,
                }
                for _ in range(options.rounds):
                    for batch in _BATCHES:
                        for way, run in ways.items():
                            seconds = seconds_of(run, faces[:batch], options.seconds)
                            times.setdefault((way, batch), []).append(seconds)
    table = Table("batch", "in process, ms", "served, ms", "served faces/s", "served / in process")
    for batch in _BATCHES:
        alone, served = (statistics.median(times[way, batch]) for way in ways)
        table.add_row(
            str(batch),
            f"{alone * 1e3:.1f}",
            f"{served * 1e3:.1f}",
            f"{batch / served:.0f}",
            f"{alone / served:.2f}",
        )
    console.print(table)
    console.print(
        f"{options.backbone}, fp32, one client, one request in flight; medians of "
        f"{options.rounds} rounds. {processor()}, {len(os.sched_getaffinity(0))} cores shared by "
        f"client and server; ONNX Runtime {onnxruntime.__version__}. Ready after {ready:.1f} s."
    )


if __name__ == "__main__":
    main()
