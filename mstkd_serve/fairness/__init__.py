"""How well verification works, and how equally well for every group."""

from mstkd_serve.fairness.accuracy import (
    AccuracyByGroup,
    accuracy_at,
    accuracy_per_group_threshold,
    best_threshold,
)

__all__ = [
    "AccuracyByGroup",
    "accuracy_at",
    "accuracy_per_group_threshold",
    "best_threshold",
]
