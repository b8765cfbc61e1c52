"""The threshold that decides most pairs rightly, and LFW's ten folds around it."""

import numpy as np
from numpy.typing import NDArray

_FOLDS = 10


def best_threshold_of(
    score: NDArray[np.floating], genuine: NDArray[np.bool_], weight: NDArray[np.floating]
) -> float:
    """Return the threshold with the largest weight of right decisions.

    Every distinct score is tried, exactly; of equally good ones the lowest is returned.

    Args:
        score: `(P,)`, at least one.
        genuine: `(P,)`.
        weight: `(P,)`, what a right decision on the pair counts.
    """
    order = np.argsort(score, kind="stable")
    ascending = score[order]
    gain = np.where(genuine, -weight, weight)[order]
    starts = np.flatnonzero(np.diff(ascending, prepend=-np.inf))
    return float(ascending[starts[_best_start(gain, starts)]])


def ten_fold_accuracy(
    score: NDArray[np.floating], genuine: NDArray[np.bool_], fold: NDArray[np.integer] | None
) -> float | None:
    """Return LFW's accuracy in percent: each fold at the threshold chosen on the others.

    Huang et al., "Labeled Faces in the Wild" (2007). It is the mean over folds.

    Args:
        score: `(P,)`.
        genuine: `(P,)`.
        fold: `(P,)` fold of each pair; None takes ten contiguous parts of the genuine and of the
            impostor pairs, in their order, as the lists of LFW and RFW have them.

    Returns:
        None where there are fewer than ten genuine or ten impostor pairs, or fewer than two folds.
    """
    if fold is None:
        if min(np.count_nonzero(genuine), np.count_nonzero(~genuine)) < _FOLDS:
            return None
        fold = np.empty(len(score), np.int32)
        for kind in (True, False):
            rows = np.flatnonzero(genuine == kind)
            for number, part in enumerate(np.array_split(rows, _FOLDS)):
                fold[part] = number
    numbers = np.unique(fold)
    if len(numbers) < 2:
        return None
    order = np.argsort(score, kind="stable")
    score, genuine, fold = score[order], genuine[order], fold[order]
    gain = np.where(genuine, -1.0, 1.0)
    accuracies = []
    for number in numbers:
        held_out = fold == number
        others = score[~held_out]
        starts = np.flatnonzero(np.diff(others, prepend=-np.inf))
        threshold = others[starts[_best_start(gain[~held_out], starts)]]
        accuracies.append(np.mean((score[held_out] >= threshold) == genuine[held_out]))
    return float(100 * np.mean(accuracies))


def _best_start(gain: NDArray[np.floating], starts: NDArray[np.integer]) -> int:
    """Return which start of equal scores is best: those below it are rejected.

    `gain` is what rejecting a pair changes. Sums of rounded weights tie only nearly, so the
    lowest within rounding is taken.
    """
    rejected = np.concatenate([[0.0], np.cumsum(gain)])[starts]
    return int(np.flatnonzero(rejected >= rejected.max() - 1e-12)[0])
