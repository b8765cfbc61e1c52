"""Verification accuracy per group, its mean and its spread.

A pair is accepted when `score >= threshold`. Accuracy is the share of pairs decided rightly, in
percent. STD and SER are the bias measures of the RFW literature (Wang et al., "Racial Faces in
the Wild", ICCV 2019; Wang and Deng, "Mitigating Bias in Face Recognition using Skewness-Aware
Reinforcement Learning", CVPR 2020).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.thresholds import best_threshold_of


@dataclass(frozen=True)
class AccuracyByGroup:
    """Accuracies in percent, by group, with the thresholds that gave them.

    Attributes:
        accuracy: Percent of a group's pairs that were decided rightly, by group name.
        threshold: Cosine threshold of each group (one value for all under a global threshold).
    """

    accuracy: Mapping[str, float]
    threshold: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Mean of the groups' accuracies, percent."""
        return float(np.mean(list(self.accuracy.values())))

    @property
    def std(self) -> float:
        """Standard deviation of the groups' accuracies, ddof 0, percentage points."""
        return float(np.std(list(self.accuracy.values())))

    @property
    def ser(self) -> float:
        """Skewed error ratio: largest error rate over smallest, 1 (fair) or more.

        Infinite where one group has no error and another has; 1 where none has any.
        """
        errors = [100.0 - value for value in self.accuracy.values()]
        if max(errors) == 0:
            return 1.0
        return max(errors) / min(errors) if min(errors) > 0 else float("inf")


@dataclass(frozen=True)
class _Pairs:
    scores: NDArray[np.float64]
    genuine: NDArray[np.bool_]
    groups: NDArray[np.str_]
    names: list[str]


def accuracy_at(
    scores: ArrayLike, genuine: ArrayLike, groups: Sequence[str], threshold: float
) -> AccuracyByGroup:
    """Decide every pair at one global threshold.

    Args:
        scores: `(P,)` cosine scores, -1 to 1.
        genuine: `(P,)` True where both faces are of one identity.
        groups: `(P,)` group name of each pair.
        threshold: Pairs with `score >= threshold` are accepted.

    Raises:
        DataError: Lengths differ, a score is not a number, there are no pairs, or a group has no
            genuine or no impostor pair.
    """
    pairs = _checked(scores, genuine, groups)
    right = (pairs.scores >= threshold) == pairs.genuine
    accuracy = {name: 100.0 * float(right[pairs.groups == name].mean()) for name in pairs.names}
    return AccuracyByGroup(accuracy, dict.fromkeys(pairs.names, float(threshold)))


def best_threshold(scores: ArrayLike, genuine: ArrayLike, groups: Sequence[str]) -> float:
    """Return the global threshold with the best mean accuracy over groups.

    Every distinct score is tried, exactly; each group has equal weight whatever its size. Of
    equally good thresholds the lowest is returned. It is chosen on the pairs it is applied to, so
    accuracies at it are slightly optimistic; the arguments and errors are those of `accuracy_at`.
    """
    pairs = _checked(scores, genuine, groups)
    weights = np.empty(len(pairs.scores))
    for name in pairs.names:
        members = pairs.groups == name
        weights[members] = 1.0 / np.count_nonzero(members)
    return best_threshold_of(pairs.scores, pairs.genuine, weights)


def accuracy_per_group_threshold(
    scores: ArrayLike, genuine: ArrayLike, groups: Sequence[str]
) -> AccuracyByGroup:
    """Give each group its own best threshold, which no deployment can do blindly.

    This policy can reverse the ranking of two models under a global threshold, so both are
    reported side by side. Arguments and errors are those of `accuracy_at`.
    """
    pairs = _checked(scores, genuine, groups)
    accuracy: dict[str, float] = {}
    threshold: dict[str, float] = {}
    for name in pairs.names:
        members = pairs.groups == name
        alone = pairs.scores[members], pairs.genuine[members], pairs.groups[members].tolist()
        threshold[name] = best_threshold(*alone)
        accuracy[name] = accuracy_at(*alone, threshold[name]).accuracy[name]
    return AccuracyByGroup(accuracy, threshold)


def _checked(scores: ArrayLike, genuine: ArrayLike, groups: Sequence[str]) -> _Pairs:
    values = np.asarray(scores, np.float64)
    labels = np.asarray(genuine, np.bool_)
    names = np.asarray(groups, np.str_)
    if not values.ndim == 1 or not values.shape == labels.shape == names.shape:
        raise DataError(
            f"scores {values.shape}, genuine {labels.shape} and groups {names.shape} must be "
            "vectors of one length: give one value of each for every pair."
        )
    if len(values) == 0:
        raise DataError("there are no pairs to evaluate: give at least two a group.")
    if not np.isfinite(values).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(values))} scores are not finite numbers: "
            "drop these pairs, or find out why they have no score."
        )
    known = sorted(set(names.tolist()))
    for name in known:
        members = labels[names == name]
        if members.all() or not members.any():
            missing = "impostor" if members.all() else "genuine"
            raise DataError(f"group {name!r} has no {missing} pairs: add some, or drop the group.")
    return _Pairs(values, labels, names, known)
