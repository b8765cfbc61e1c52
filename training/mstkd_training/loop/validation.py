"""Verification accuracy on held-out identities: what a checkpoint is chosen by."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mstkd_serve.fairness.rates import GroupScores
from mstkd_serve.fairness.thresholds import best_threshold
from mstkd_training.data.pairs import Pairs

_BATCH = 256


def pair_figures(
    pairs: Pairs, group_names: tuple[str, ...], embed_rows: Callable[[NDArray[np.int64]], Tensor]
) -> dict[str, float]:
    """Measure how well an embedding tells pairs apart.

    Args:
        pairs: Genuine and impostor pairs within groups.
        group_names: The names that `pairs.groups` indexes; groups without pairs are left out.
        embed_rows: From rows that the pairs index, int64 `(B,)`, to unit embeddings `(B, dim)`.

    Returns:
        `accuracy_<group>`, their mean and their standard deviation (ddof 0) as `accuracy_mean`
        and `accuracy_std`, in percent, all at the one threshold that is best for their mean.
    """
    rows, numbers = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    vectors = np.concatenate(
        [
            embed_rows(rows[start : start + _BATCH]).float().cpu().numpy()
            for start in range(0, len(rows), _BATCH)
        ]
    )
    first, second = np.split(numbers, 2)
    scores = np.einsum("pd,pd->p", vectors[first], vectors[second])
    groups = {
        group_names[group]: GroupScores.of(
            scores[pairs.groups == group], pairs.genuine[pairs.groups == group]
        )
        for group in np.unique(pairs.groups)
    }
    threshold = best_threshold(list(groups.values()))
    accuracies = {name: _accuracy(group, threshold) for name, group in groups.items()}
    values = np.array(list(accuracies.values()))
    return {f"accuracy_{name}": value for name, value in accuracies.items()} | {
        "accuracy_mean": float(values.mean()),
        "accuracy_std": float(values.std()),
    }


def score_of(figures: Mapping[str, float], std_weight: float) -> float:
    """Return the mean accuracy minus `std_weight` times its standard deviation over groups."""
    return figures["accuracy_mean"] - std_weight * figures["accuracy_std"]


def _accuracy(group: GroupScores, threshold: float) -> float:
    wrong = group.false_matches(threshold) + group.false_non_matches(threshold)
    return 100.0 * (1.0 - wrong / (len(group.genuine) + len(group.impostor)))
