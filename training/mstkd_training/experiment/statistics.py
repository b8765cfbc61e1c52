"""Means and intervals over seeds, and paired differences between kinds of teachers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from mstkd_training.experiment.arms import ARMS, KINDS, Arm, Learner
from mstkd_training.experiment.figures import METRICS, Result

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: The mean; None where no seed has the figure.
        half_width: The 95 % interval of the mean is the mean plus or minus this; None from
            fewer than two seeds.
        count: Seeds that have the figure.
    """

    mean: float | None
    half_width: float | None
    count: int

    @property
    def apart_from_zero(self) -> bool:
        """Whether the interval leaves 0 out."""
        if self.mean is None or self.half_width is None:
            return False
        return abs(self.mean) > self.half_width


@dataclass(frozen=True)
class Comparison:
    """Specialised minus generalist teachers, within each seed, for one way to use them.

    Attributes:
        adaptor: Name of the adaptor; `mean` for the mean over adaptors and students of a seed.
        student: Its student; `all` in that mean.
        differences: By metric.
    """

    adaptor: str
    student: Learner | str
    differences: dict[str, Estimate]


def estimate(values: Sequence[float | None]) -> Estimate:
    """Return mean and 95 % interval of the mean, by Student's t over seeds.

    The half width is t(0.975, n - 1) s / sqrt(n), s with ddof 1. It takes seeds for independent
    draws and their figures for about normal.

    Args:
        values: A figure for each seed; None where it is undefined there, which is left out.
    """
    known = [value for value in values if value is not None]
    count = len(known)
    if count == 0:
        return Estimate(None, None, 0)
    mean = math.fsum(known) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in known) / (count - 1)
    return Estimate(mean, t_quantile(count - 1) * math.sqrt(variance / count), count)


@cache
def t_quantile(freedom: int) -> float:
    """Return t with a share `LEVEL` of Student's distribution between -t and t.

    Args:
        freedom: Degrees of freedom, 1 or more.
    """
    low, high = 0.0, 1.0
    while _central_share(high, freedom) < LEVEL:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _central_share(middle, freedom) < LEVEL:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _central_share(t: float, freedom: int) -> float:
    """Return P(-t < T < t): Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cos, sin = math.cos(angle), math.sin(angle)
    odd = freedom % 2 == 1
    term = cos if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cos**2 * (k - 1) / k
        total += term
    if not odd:
        return sin * total
    return 2 / math.pi * (angle + sin * total)


def summarise(results: Sequence[Result]) -> dict[Arm, dict[str, Estimate]]:
    """Return every metric's mean and interval over seeds, for each arm."""
    return {
        arm: {
            metric: estimate([getattr(r.figures, metric) for r in results if r.arm == arm])
            for metric in METRICS
        }
        for arm in ARMS
    }


def paired_differences(results: Sequence[Result]) -> list[Comparison]:
    """Return what specialised teachers change, each way to use them compared within its seed.

    The last row is the mean over all students, taken within each seed first: the students of a
    seed share teachers and faces, so that seeds alone are independent.
    """
    by_place = {(result.seed, result.arm): result.figures for result in results}
    seeds = sorted({result.seed for result in results})
    methods = list(dict.fromkeys(arm.method for arm in ARMS))

    def difference(seed: int, method: tuple[str, Learner], metric: str) -> float | None:
        special, general = (getattr(by_place[seed, Arm(kind, *method)], metric) for kind in KINDS)
        return None if special is None or general is None else special - general

    def over_students(seed: int, metric: str) -> float | None:
        found = [difference(seed, method, metric) for method in methods if method[1] != "none"]
        known = [value for value in found if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(found) else None

    rows = [
        Comparison(
            *method,
            {m: estimate([difference(seed, method, m) for seed in seeds]) for m in METRICS},
        )
        for method in methods
    ]
    everyone = {m: estimate([over_students(seed, m) for seed in seeds]) for m in METRICS}
    return [*rows, Comparison("mean", "all", everyone)]
