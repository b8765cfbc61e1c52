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


def interval(values: NDArray[np.float64]) -> Interval | None:
    """Return the central 95 % of replicates; None where there are fewer than 20."""
    if len(values) < 20:
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), level=LEVEL)


def summary_intervals(
    groups: Mapping[str, Resampled], ddof: int
) -> tuple[Interval | None, Interval | None]:
    """Return the intervals of the mean accuracy and of its STD over groups."""
    shortest = min(len(group.accuracy) for group in groups.values())
    table = np.stack([group.accuracy[:shortest] for group in groups.values()])
    spread = table.std(axis=0, ddof=ddof) if len(groups) > ddof else np.zeros(shortest)
    return interval(table.mean(axis=0)), interval(spread)
