"""Choose how to serve a model by measuring it: instances, queue delay, batch, queue."""

import contextlib
import itertools
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tritonclient.grpc import InferenceServerClient

from mstkd_serve.bench.load import LoadPoint, closed_loop
from mstkd_serve.bench.machine import Machine, describe_machine
from mstkd_serve.bench.rounds import in_turn
from mstkd_serve.bench.session import UNBOUNDED, Progress
from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import ServerError
from mstkd_serve.repository import STUDENT, ServingOptions, Target, build_repository
from mstkd_serve.triton import Ports, TritonServer, locate

_EQUAL = 0.03
"""Speeds this close to the best count as the best: the simpler settings win."""


class Workload(BaseModel):
    """What the callers will do.

    Attributes:
        callers: Requests on the way at a time.
        batch: Faces a request.
        longest_ms: Longest that a request should take, its 99th percentile, milliseconds.
    """

    model_config = ConfigDict(frozen=True)

    callers: int = 16
    batch: int = 1
    longest_ms: float = 1000.0


class Candidate(BaseModel):
    """One way of serving, and what it reached.

    Attributes:
        instances: Copies of the model.
        intra_op_threads: Threads of each; 0 shares the cores among them.
        max_queue_delay_us: Wait for companions, microseconds.
        max_batch_size: Largest batch.
        bounded: Whether the queue has bounds; see `ServingOptions.queue_timeout_ms`.
        faces_per_second: Median over rounds.
        p50_ms: Median over rounds of the median latency.
        p99_ms: Median over rounds of the 99th percentile.
        mean_batch: Faces that the server ran at once, the median over rounds.
    """

    model_config = ConfigDict(frozen=True)

    instances: int
    intra_op_threads: int
    max_queue_delay_us: int
    max_batch_size: int
    bounded: bool
    faces_per_second: float
    p50_ms: float
    p99_ms: float
    mean_batch: float


class Tuning(BaseModel):
    """The outcome.

    Attributes:
        machine: Where it ran.
        workload: What was asked for.
        candidates: Everything that was measured, the simplest first.
        best: The choice.
        max_queue_size: Requests that may wait so that the last of them still keeps `longest_ms`;
            0 where the choice has no bounds.
        kept: Whether the choice keeps `longest_ms`; if none does, the fastest to answer is taken.
    """

    machine: Machine
    workload: Workload
    candidates: list[Candidate]
    best: Candidate
    max_queue_size: int
    kept: bool

    def options(self) -> dict[str, int]:
        """Return the choice as options of `mstkd-serve repo build`."""
        return {
            "--instances": self.best.instances,
            "--intra-op-threads": self.best.intra_op_threads,
            "--max-queue-delay-us": self.best.max_queue_delay_us,
            "--max-batch-size": self.best.max_batch_size,
            "--max-queue-size": self.max_queue_size,
        } | ({} if self.best.bounded else {"--queue-timeout-ms": 0})


def tune(
    student: Path,
    preprocessing: Preprocessing | None,
    workload: Workload,
    options: ServingOptions,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> Tuning:
    """Serve a model in several ways, in turn, under the same load.

    Args:
        student: The recogniser's ONNX file.
        preprocessing: Its contract, where the file carries none.
        workload: What the callers will do.
        options: Everything that is not chosen here, such as the precision.
        rounds: Rounds that medians are over; each starts each server once.
        seconds: Seconds of one measurement.
        progress: Called with a line about what is being measured.

    Raises:
        GraphError: The model cannot be served.
        ServerError: There is no tritonserver, or it answered nothing.
    """
    locate()
    with tempfile.TemporaryDirectory(prefix="mstkd-tune-") as folder:
        trial = _Trial(student, preprocessing, workload, options, Path(folder), seconds)
        candidates = trial.measure(_ways(workload), rounds, progress)
        first, _ = choose(candidates, workload.longest_ms)
        way = first.model_dump(include=set(_ways(workload)[0]))
        finalists = trial.measure([way, way | UNBOUNDED], rounds, progress)
    best, kept = choose(finalists, workload.longest_ms)
    waiting = best.faces_per_second / workload.batch * workload.longest_ms / 1e3
    return Tuning(
        machine=describe_machine(),
        workload=workload,
        candidates=[*candidates, *finalists],
        best=best,
        max_queue_size=max(workload.callers, math.floor(waiting)) if best.bounded else 0,
        kept=kept,
    )


def choose(candidates: Sequence[Candidate], longest_ms: float) -> tuple[Candidate, bool]:
    """Choose the fastest candidate that keeps the latency, the simplest where several are equal.

    Args:
        candidates: The simplest first.
        longest_ms: Longest 99th percentile.

    Returns:
        The choice, and whether it keeps the latency. If none does, it is the one that comes
        nearest.
    """
    keeping = [each for each in candidates if each.p99_ms <= longest_ms]
    if not keeping:
        return min(candidates, key=lambda each: each.p99_ms), False
    fastest = max(each.faces_per_second for each in keeping)
    enough = (1 - _EQUAL) * fastest
    return next(each for each in keeping if each.faces_per_second >= enough), True


def _ways(workload: Workload) -> list[dict[str, int]]:
    """Return settings to try, the simplest first; several copies get all the cores each."""
    cores = len(os.sched_getaffinity(0))
    batches = sorted({max(8, workload.batch), max(32, workload.batch)}, reverse=True)
    return [
        {
            "instances": copies,
            "intra_op_threads": 0 if copies == 1 else cores,
            "max_queue_delay_us": delay,
            "max_batch_size": batch,
        }
        for copies, delay, batch in itertools.product((1, 2), (0, 2000), batches)
    ]


@dataclass(frozen=True)
class _Trial:
    """What all candidates have in common."""

    student: Path
    preprocessing: Preprocessing | None
    workload: Workload
    options: ServingOptions
    folder: Path
    seconds: float

    def measure(
        self, ways: Sequence[dict[str, int]], rounds: int, progress: Progress
    ) -> list[Candidate]:
        """Measure ways of serving in turn."""
        trials = {_words(way): self._prepare(way, progress) for way in ways}
        measured = in_turn(trials, rounds, progress)
        return [_candidate(way, measured[_words(way)]) for way in ways]

    def _prepare(self, way: dict[str, int], progress: Progress) -> Callable[[], LoadPoint]:
        progress(f"building {_words(way)}")
        repository = Path(tempfile.mkdtemp(dir=self.folder)) / "repository"
        build_repository(
            {STUDENT: self.student},
            repository,
            target=Target.PYTHON,
            preprocessing=self.preprocessing,
            options=ServingOptions(**self.options.model_dump() | way),
        )

        def measure() -> LoadPoint:
            with (
                TritonServer(locate(), repository, Ports(0, 0, 0)) as server,
                contextlib.closing(InferenceServerClient(server.url)) as client,
            ):
                server.wait_ready(300)
                return closed_loop(
                    client,
                    STUDENT,
                    batch=self.workload.batch,
                    concurrency=self.workload.callers,
                    seconds=self.seconds,
                )

        return measure


def _words(way: dict[str, int]) -> str:
    bounds = "unbounded" if UNBOUNDED.items() <= way.items() else "bounded"
    return (
        f"{way['instances']} instances, delay {way['max_queue_delay_us']} us, "
        f"batches up to {way['max_batch_size']}, {bounds} queue"
    )


def _candidate(way: dict[str, int], points: Sequence[LoadPoint]) -> Candidate:
    if failed := sum(point.failures for point in points):
        raise ServerError(f"{failed} requests failed with {_words(way)}: ask for fewer callers.")
    return Candidate(
        instances=way["instances"],
        intra_op_threads=way["intra_op_threads"],
        max_queue_delay_us=way["max_queue_delay_us"],
        max_batch_size=way["max_batch_size"],
        bounded=not UNBOUNDED.items() <= way.items(),
        faces_per_second=statistics.median(point.faces_per_second for point in points),
        p50_ms=statistics.median(point.p50_ms for point in points),
        p99_ms=statistics.median(point.p99_ms for point in points),
        mean_batch=statistics.median(point.mean_batch or 0.0 for point in points),
    )
