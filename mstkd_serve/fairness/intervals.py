"""Bootstrap intervals of accuracies and error rates at a fixed threshold.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile method. The threshold
is held fixed: the interval says how far the figures move with other pairs, not with another
choice of threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.fairness.schema import Interval

LEVEL: Final = 0.95

_MOST_VISITS = 200_000_000
_FEWEST_REPLICATES = 50


@dataclass(frozen=True, eq=False)
class Resampled:
    """Replicates of one group's rates, each float64 `(R,)`; accuracy in percent."""

    accuracy: NDArray[np.float64]
    fmr: NDArray[np.float64]
    fnmr: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decisions:
    """One group's decisions.

    Attributes:
        genuine: bool `(P,)`.
        wrong: bool `(P,)`.
        first_identity: int `(P,)`, or None where identities are unknown.
        second_identity: int `(P,)`, or None.
    """

    genuine: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    first_identity: NDArray[np.integer] | None = None
    second_identity: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class GroupIntervals:
    """Intervals of one group's rates; None where there were too few replicates."""

    accuracy: Interval | None
    fmr: Interval | None
    fnmr: Interval | None


def resample(decisions: Decisions, replicates: int, rng: np.random.Generator) -> Resampled:
    """Draw replicates of a group's rates.

    Where identities are known they are resampled, with all their pairs, because pairs that share
    a face are not independent; a pair counts the product of how often its two identities were
    drawn (once, if they are the same); above 200 million pairs times replicates there are fewer
    replicates, at least 50. Otherwise pairs are resampled, genuine and impostor apart,
    which at a fixed threshold is a binomial draw.
    """
    genuine, wrong = decisions.genuine, decisions.wrong
    if decisions.first_identity is None or decisions.second_identity is None:
        positives, negatives = np.count_nonzero(genuine), np.count_nonzero(~genuine)
        missed = rng.binomial(positives, wrong[genuine].mean(), replicates)
        matched = rng.binomial(negatives, wrong[~genuine].mean(), replicates)
        return Resampled(
            accuracy=100 * (1 - (missed + matched) / (positives + negatives)),
            fmr=matched / negatives,
            fnmr=missed / positives,
        )
    both = np.concatenate([decisions.first_identity, decisions.second_identity])
    identities, codes = np.unique(both, return_inverse=True)
    first, second = codes[: len(genuine)], codes[len(genuine) :]
    replicates = min(replicates, max(_FEWEST_REPLICATES, _MOST_VISITS // len(genuine)))
    rows = np.empty((replicates, 3))
    for replicate in range(replicates):
        drawn = np.bincount(
            rng.integers(0, len(identities), len(identities)), minlength=len(identities)
        )
        weight = np.where(first == second, drawn[first], drawn[first] * drawn[second])
        rows[replicate] = _weighted_rates(genuine, wrong, weight)
    usable = rows[np.isfinite(rows).all(axis=1)]
    return Resampled(accuracy=usable[:, 0], fmr=usable[:, 1], fnmr=usable[:, 2])


def _weighted_rates(
    genuine: NDArray[np.bool_], wrong: NDArray[np.bool_], weight: NDArray[np.integer]
) -> tuple[float, float, float]:
    """Return accuracy in percent, FMR and FNMR; NaN where a kind of pair was not drawn."""
    positives, negatives = weight[genuine].sum(), weight[~genuine].sum()
    if positives == 0 or negatives == 0:
        return (np.nan, np.nan, np.nan)
    missed, matched = weight[genuine & wrong].sum(), weight[~genuine & wrong].sum()
    accuracy = 100 * (1 - (missed + matched) / (positives + negatives))
    return (float(accuracy), float(matched / negatives), float(missed / positives))


def group_intervals(decisions: Decisions, resampled: Resampled) -> GroupIntervals:
    """Return the intervals of one group's rates.

    A bootstrap of pairs without a single error knows of no error: its interval would be a point.
    There stands the exact interval of Clopper and Pearson (Biometrika, 1934), which for no error
    in n is 0 to 1 - 0.025^(1/n); n is the number of identities where they are known (those with
    pairs of the kind), since pairs that share a face are not independent, else of pairs.
    """
    genuine, wrong = decisions.genuine, decisions.wrong
    everything = np.ones(len(genuine), np.bool_)
    fmr, fnmr, error = (
        _rate_interval(values, wrong[rows], _independent(decisions, rows))
        for values, rows in (
            (resampled.fmr, ~genuine),
            (resampled.fnmr, genuine),
            (1 - resampled.accuracy / 100, everything),
        )
    )
    accuracy = error and Interval(low=100 * (1 - error.high), high=100 * (1 - error.low))
    return GroupIntervals(accuracy, fmr, fnmr)


def _independent(decisions: Decisions, rows: NDArray[np.bool_]) -> int:
    """Return the number of pairs that may be taken for independent."""
    pairs = int(np.count_nonzero(rows))
    if decisions.first_identity is None or decisions.second_identity is None:
        return pairs
    faces = np.concatenate([decisions.first_identity[rows], decisions.second_identity[rows]])
    return min(pairs, len(np.unique(faces)))


def _rate_interval(
    values: NDArray[np.float64], wrong: NDArray[np.bool_], trials: int
) -> Interval | None:
    margin = 1 - float(((1 - LEVEL) / 2) ** (1 / trials))
    if not wrong.any():
        return Interval(low=0.0, high=margin)
    if wrong.all():
        return Interval(low=1 - margin, high=1.0)
    return interval(values)


def interval(values: NDArray[np.float64]) -> Interval | None:
    """Return the central 95 % of replicates; None where there are fewer than 20."""
    if len(values) < 20:
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), level=LEVEL)


def summary_intervals(
    groups: Mapping[str, Resampled], ddof: int
) -> tuple[Interval | None, Interval | None]:
    """Return the intervals of the mean accuracy and of its STD over groups.

    They are None where no group has an error: nothing is known then of how far they move.
    Noise adds to a spread, so replicates of STD lie above it where it is small: an interval whose
    low end is above 0 does not prove a difference between groups.
    """
    if all((group.accuracy == 100).all() for group in groups.values()):
        return None, None
    shortest = min(len(group.accuracy) for group in groups.values())
    table = np.stack([group.accuracy[:shortest] for group in groups.values()])
    spread = table.std(axis=0, ddof=ddof) if len(groups) > ddof else np.zeros(shortest)
    return interval(table.mean(axis=0)), interval(spread)
