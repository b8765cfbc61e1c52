"""The threshold that decides most pairs rightly, and LFW's ten folds around it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.fairness.rates import GroupScores, below

_FOLDS = 10


def best_threshold(groups: Sequence[GroupScores]) -> float:
    """Return the threshold with the best mean accuracy over groups, exactly.

    Raising a threshold to the next genuine score only rejects more impostors, so the best one is
    a genuine score; or it lies just above every score, where rejecting all pairs is best. Of
    equally good ones the lowest is returned.

    Args:
        groups: At least one; each weighs the same, whatever its number of pairs.
    """
    tried = np.unique(np.concatenate([group.genuine for group in groups]).astype(np.float64))
    highest = np.float64(max(group.impostor[-1] for group in groups))
    if highest >= tried[-1]:
        tried = np.append(tried, np.nextafter(highest, np.inf))
    right = np.zeros(len(tried))
    for group in groups:
        pairs = len(group.genuine) + len(group.impostor)
        accepted = len(group.genuine) - below(group.genuine, tried)
        right += (accepted + below(group.impostor, tried)) / pairs
    # Sums of rounded shares tie only nearly.
    return float(tried[np.flatnonzero(right >= right.max() - 1e-12)[0]])


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
        threshold = _best_of_sorted(score[~held_out], gain[~held_out])
        accuracies.append(np.mean((score[held_out] >= threshold) == genuine[held_out]))
    return float(100 * np.mean(accuracies))


def _best_of_sorted(score: NDArray[np.floating], gain: NDArray[np.floating]) -> float:
    """Return the lowest best threshold of ascending scores: rejecting a pair changes `gain`."""
    starts = np.flatnonzero(np.diff(score, prepend=-np.inf))
    tried = np.append(score[starts], np.nextafter(score[-1], np.inf))
    rejected = np.concatenate([[0.0], np.cumsum(gain)])[np.append(starts, len(score))]
    return float(tried[np.argmax(rejected)])
