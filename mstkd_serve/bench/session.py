"""What the parts of a benchmark share: what is measured, how thoroughly, and the report so far."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.bench.results import BenchReport, Target
from mstkd_serve.contract import Preprocessing
from mstkd_serve.golden import golden_faces
from mstkd_serve.repository import CpuPrecision, Projection

BATCH = 16
UNBOUNDED = {"max_queue_size": 0, "queue_timeout_ms": 0}
"""Options of a queue without any policy."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        student: The recogniser's ONNX file; its float32 network, where insightface shall be
            measured beside it.
        preprocessing: Its contract, where the file carries none.
        projection: Teachers and adaptor, to measure the ensemble mode.
        precision: Precision of the served models.
        bounded: Whether their queues are, as they are by default; see `ServingOptions`.
        also: Further served graphs to measure in process.
    """

    student: Path
    preprocessing: Preprocessing | None = None
    projection: Projection | None = None
    precision: CpuPrecision = CpuPrecision.AUTO
    bounded: bool = True
    also: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Effort:
    """How thoroughly.

    Attributes:
        rounds: Rounds that a ratio is the median over.
        seconds: Seconds of one measurement.
        starts: Starts of `mstkd-serve up`.
        client_rounds: Rounds of the client's cost, about ten seconds each; 0 leaves it out.
    """

    rounds: int = 5
    seconds: float = 2.0
    starts: int = 3
    client_rounds: int = 3


@dataclass(frozen=True)
class Session:
    """A run under way.

    Attributes:
        subject: What is measured.
        effort: How thoroughly.
        report: What was found so far.
        progress: Called with a line about what is measured.
        repository: Folder of the model repository under test.
    """

    subject: Subject
    effort: Effort
    report: BenchReport
    progress: Progress
    repository: Path

    def graph(self, model: str) -> Path:
        """Return the served graph of a model in the repository."""
        return self.repository / model / "1" / "model.onnx"

    def claim(self, claim: str, value: float, bound: float, *, at_least: bool = True) -> None:
        """Write down a claim and what was measured of it."""
        target = Target(claim=claim, value=value, bound=bound, at_least=at_least)
        self.report.targets.append(target)

    def served_by(self, model: str) -> str:
        """Return the name of the in-process engine that a served model uses."""
        lines = (line for line in self.report.served if line.startswith(f"{model}_"))
        line = next(lines, "").partition("(")[0]
        if "openvino" not in line:
            return "ONNX Runtime fp32"
        return "OpenVINO bf16" if "in bf16" in line else "OpenVINO fp32"


def bench_faces() -> NDArray[np.uint8]:
    """Return `BATCH` different faces: the golden ones, mirrored and upside down."""
    faces = golden_faces()
    both = np.concatenate([faces, faces[:, :, ::-1]])
    return np.ascontiguousarray(np.concatenate([both, both[:, ::-1]]))
