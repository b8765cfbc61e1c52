"""The in-process ways of one model, and how fast and how equal they are."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.bench.peers import Run
from mstkd_serve.bench.results import EngineSpeed
from mstkd_serve.engine import Engine, OnnxRuntimeEngine, OpenVinoEngine, bf16_instructions
from mstkd_serve.errors import EngineError

REFERENCE = "ONNX Runtime fp32"
PEER = "insightface"


def open_engines(served: Path, also: Sequence[Path], notes: list[str]) -> dict[str, Run]:
    """Open every in-process engine that this machine has for a served graph.

    Args:
        served: The served graph.
        also: Further served graphs, such as those of `mstkd-serve precision convert`.
        notes: Gets a line for each engine that was left out.
    """
    engines: dict[str, Run] = {REFERENCE: OnnxRuntimeEngine(served).run}
    wanted: dict[str, Callable[[], Engine]] = {"OpenVINO fp32": partial(OpenVinoEngine, served)}
    if bf16_instructions():
        wanted["OpenVINO bf16"] = partial(OpenVinoEngine, served, "bf16")
    else:
        notes.append("OpenVINO bf16: this CPU has neither AMX nor AVX512-BF16.")
    for path in also:
        wanted[f"ONNX Runtime, {path.stem}"] = partial(OnnxRuntimeEngine, path)
        wanted[f"OpenVINO, {path.stem}"] = partial(OpenVinoEngine, path)
    for name, opener in wanted.items():
        try:
            engines[name] = opener().run
        except EngineError as error:
            notes.append(f"{name}: {error}")
    return engines


def speeds(
    engines: Mapping[str, Run],
    seconds: Mapping[tuple[str, int], Sequence[float]],
    batches: Sequence[int],
    faces: NDArray[np.uint8],
) -> list[EngineSpeed]:
    """Summarise what was measured.

    Args:
        engines: Every engine by name.
        seconds: Seconds of one call of an engine with a batch, each round.
        batches: Batch sizes.
        faces: Faces to compare the embeddings on.
    """
    expected = engines[REFERENCE](faces)
    return [
        EngineSpeed(
            name=name,
            milliseconds={size: statistics.median(seconds[name, size]) * 1e3 for size in batches},
            ratio={size: ratio(seconds[PEER, size], seconds[name, size]) for size in batches}
            if PEER in engines
            else None,
            mean_cosine=mean_cosine(run(faces), expected),
        )
        for name, run in engines.items()
    ]


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the median over rounds of `first / second`."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def mean_cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the mean over rows of the cosine of `(N, dim)` and `(N, dim)`."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).mean())
