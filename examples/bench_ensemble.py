"""Compare the ensemble mode as one fused graph and as steps, on the demo's models.

`make bench-ensemble` runs it after `make demo`: both repositories served side by side by real
tritonservers, asked in turn, medians of several rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mstkd_client import FaceClient
from mstkd_serve.repository import Projection, Target, build_repository
from mstkd_serve.triton import Ports, TritonServer, locate
from mstkd_training.artifact import Artifact

LOADS = ((1, 1), (1, 16), (16, 1), (32, 2))
"""Faces a request, and callers at a time."""


def faces_per_second(client: FaceClient, faces: np.ndarray, callers: int, seconds: float) -> float:
    """Embed a batch again and again from some threads at once."""
    end = time.perf_counter() + seconds

    def work() -> int:
        done = 0
        while time.perf_counter() < end:
            done += len(client.embed(faces))
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        total = sum(job.result() for job in [pool.submit(work) for _ in range(callers)])
    return total / (time.perf_counter() - started)


def main() -> int:
    """Build, serve, measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="the demo's folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    models = arguments.demo / "models"
    if not (models / "adaptor.onnx").is_file():
        Console(stderr=True).print(f"error: {models}: no adaptor.onnx. Run `make demo` first.")
        return 2
    adaptor = Artifact.open(arguments.demo / "training" / "adaptor", "adaptor")
    teachers = [models / f"{teacher.name}.onnx" for teacher in adaptor.manifest.teachers]
    faces = np.random.default_rng(0).integers(0, 256, (32, 112, 112, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        servers = {}
        for way in ("graph", "steps"):
            build_repository(
                {"student": models / "student.onnx"},
                Path(folder) / way,
                target=Target.PYTHON,
                projection=Projection(teachers, models / "adaptor.onnx", way == "steps"),
            )
            servers[way] = TritonServer(locate(), Path(folder) / way, Ports(0, 0, 0))
        try:
            for server in servers.values():
                server.start()
            for server in servers.values():
                server.wait_ready(120)
            clients = {
                way: FaceClient(server.url, mode="ensemble") for way, server in servers.items()
            }
            table = Table("faces a request", "callers", "graph, faces/s", "steps, faces/s", "ratio")
            for size, callers in LOADS:
                speeds: dict[str, list[float]] = {way: [] for way in clients}
                for _ in range(arguments.rounds):
                    for way, client in clients.items():
                        speed = faces_per_second(client, faces[:size], callers, arguments.seconds)
                        speeds[way].append(speed)
                graph, steps = (statistics.median(speeds[way]) for way in ("graph", "steps"))
                row = (size, callers, f"{graph:.0f}", f"{steps:.0f}", f"{graph / steps:.2f}")
                table.add_row(*map(str, row))
            console.print(table)
        finally:
            for server in servers.values():
                server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
