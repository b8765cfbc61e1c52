"""Thresholds at stated false match rates: pooled, and for the worst group."""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.rates import GroupScores, threshold_at_fmr
from mstkd_serve.fairness.schema import CalibrationPoint

FMR_TARGETS: Final = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)
"""Targets for which thresholds are always stored."""


def calibration_points(
    groups: Mapping[str, GroupScores], further: Iterable[float] = ()
) -> tuple[CalibrationPoint, ...]:
    """Return the thresholds at every FMR of `FMR_TARGETS` and at further ones, highest first.

    The pooled threshold treats all impostor pairs as one set; some groups then exceed the target.
    The worst-group threshold is the highest of the groups' own, so that none does.

    Raises:
        DataError: A target is not between 0 and 1.
    """
    targets = sorted({*FMR_TARGETS, *further}, reverse=True)
    if not all(0 < target < 1 for target in targets):
        raise DataError(f"false match rates must lie between 0 and 1, got {list(further)}.")
    total = sum(len(group.impostor) for group in groups.values())
    most = int(targets[0] * total) + 2  # only these highest scores decide
    highest = np.sort(np.concatenate([group.impostor[-most:] for group in groups.values()]))
    points = []
    for target in targets:
        for_all = threshold_at_fmr(highest, target, total)
        for_worst = max(threshold_at_fmr(group.impostor, target) for group in groups.values())
        points.append(
            CalibrationPoint(
                fmr=target,
                threshold_pooled=for_all,
                threshold_worst_group=for_worst,
                supported=all(group.supports(target) for group in groups.values()),
                group_fmr={name: group.fmr(for_worst) for name, group in groups.items()},
                group_fnmr={name: group.fnmr(for_worst) for name, group in groups.items()},
                pooled_group_fmr={name: group.fmr(for_all) for name, group in groups.items()},
                pooled_group_fnmr={name: group.fnmr(for_all) for name, group in groups.items()},
            )
        )
    return tuple(points)
