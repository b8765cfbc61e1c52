"""Compare the in-process engines with insightface's ArcFaceONNX, interleaved, medians of rounds.

`make bench` runs it: one backbone with random weights, its served graph in ONNX Runtime and in
OpenVINO (fp32, and bf16 where the CPU computes in it), against insightface on the float file.
"""

import argparse
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
from bench import processor, seconds_of, write_backbone
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mstkd_serve.contract import Preprocessing
from mstkd_serve.engine import OnnxRuntimeEngine, OpenVinoEngine
from mstkd_serve.graph import build_served_graph

_BATCHES = (1, 16)
_PEER = "insightface"
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def insightface(path: Path) -> Run:
    """Return insightface's way, from uint8 RGB faces to its embeddings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = ArcFaceONNX(str(path), session)

    def run(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = model.get_feat(list(faces[..., ::-1]))  # it takes BGR
        return answer

    return run


def engines(source: Path, served: Path) -> dict[str, Run]:
    """Return every way of embedding uint8 RGB faces `(N, 112, 112, 3)`, the peer first."""
    ways: dict[str, Run] = {
        _PEER: insightface(source),
        "ONNX Runtime, fp32": OnnxRuntimeEngine(served).run,
        "OpenVINO, fp32": OpenVinoEngine(served).run,
    }
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if "amx_bf16" in flags or "avx512_bf16" in flags:
        ways["OpenVINO, bf16"] = OpenVinoEngine(served, "bf16").run
    return ways


def mean_cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the mean over rows of the cosine of `(N, dim)` and `(N, dim)`."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(1) / lengths).mean())


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="iresnet18", help="a backbone's name")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of one measurement")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    faces = np.random.default_rng(0).integers(0, 256, (max(_BATCHES), 112, 112, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        source, served = Path(folder, "backbone.onnx"), Path(folder, "served.onnx")
        write_backbone(options.backbone, source)
        build_served_graph(source, served, preprocessing=Preprocessing())
        ways = engines(source, served)
        expected = ways[_PEER](faces)
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.rounds):
            for batch in _BATCHES:
                for name, run in ways.items():
                    seconds = seconds_of(run, faces[:batch], options.seconds)
                    times.setdefault((name, batch), []).append(seconds)
        table = Table("engine", *(f"batch {b}, faces/s (ratio)" for b in _BATCHES), "mean cosine")
        for name, run in ways.items():
            cells = []
            for batch in _BATCHES:
                own, peer = (statistics.median(times[n, batch]) for n in (name, _PEER))
                cells.append(f"{batch / own:.1f} ({peer / own:.2f})")
            table.add_row(name, *cells, f"{mean_cosine(run(faces), expected):.5f}")
    console.print(table)
    console.print(
        f"{options.backbone}, random weights; ratio and cosine against {_PEER}'s ArcFaceONNX on "
        f"ONNX Runtime fp32; medians of {options.rounds} rounds. {processor()}, "
        f"{len(os.sched_getaffinity(0))} cores; ONNX Runtime {onnxruntime.__version__}, OpenVINO "
        f"{openvino.__version__.split('-')[0]}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
