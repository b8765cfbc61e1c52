"""Parts of the pairs: within one group, across two, and of a subgroup."""

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.rates import GroupScores
from mstkd_serve.fairness.schema import OperatingPoint
from mstkd_serve.fairness.scores import Scores


def second_group(scores: Scores) -> NDArray[np.integer]:
    """Return each pair's second group as an index into `group_names`.

    It is the first group where none is stated.

    Raises:
        DataError: A second group has no pairs of its own.
    """
    if "second_group" not in scores.extra:
        return scores.group
    places = {name: index for index, name in enumerate(scores.group_names)}
    names = scores.names["second_group"]
    if unknown := [name for name in names if name and name not in places]:
        raise DataError(
            f"{scores.source}: second_group {unknown[0]!r} is the group of no pair; known are "
            f"{', '.join(scores.group_names)}. Correct its name, or add its pairs."
        )
    lookup = np.array([places.get(name, -1) for name in names])[scores.extra["second_group"]]
    return np.where(lookup < 0, scores.group, lookup)


def rows_by_group(scores: Scores) -> dict[str, NDArray[np.int64]]:
    """Return which pairs lie within each group, by its name.

    Raises:
        DataError: A second group is unknown, a genuine pair lies across two groups, or a group
            is left without genuine or without impostor pairs.
    """
    within = second_group(scores) == scores.group
    across = np.flatnonzero(~within & scores.genuine)
    if len(across):
        raise DataError(
            f"{scores.source}: {len(across)} genuine pairs have faces of two groups, the first is "
            f"pair {int(across[0])} (counted from 0). Correct their group, second_group or genuine."
        )
    rows = {
        name: np.flatnonzero(within & (scores.group == index))
        for index, name in enumerate(scores.group_names)
    }
    for name, members in rows.items():
        if scores.genuine[members].all():
            raise DataError(
                f"{scores.source}: all impostor pairs of group {name!r} are across groups. Add "
                "some within it, or leave the group out."
            )
    return rows


def cross_group_rows(scores: Scores) -> dict[str, NDArray[np.int64]]:
    """Return which impostor pairs lie across each two groups, by `A|B`."""
    second = second_group(scores)
    rows = np.flatnonzero((second != scores.group) & ~scores.genuine)
    ends = np.sort(np.stack([scores.group[rows], second[rows]]), axis=0)
    couple = ends[0] * len(scores.group_names) + ends[1]
    found = {}
    for code in np.unique(couple):
        a, b = divmod(int(code), len(scores.group_names))
        found[f"{scores.group_names[a]}|{scores.group_names[b]}"] = rows[couple == code]
    return found


def cross_group_fmr(scores: Scores, threshold: float) -> dict[str, float]:
    """Return the FMR of impostor pairs across each two groups, by `A|B`."""
    return {
        name: float((scores.score[rows] >= threshold).mean())
        for name, rows in cross_group_rows(scores).items()
    }


def subgroup_rows(
    scores: Scores, rows: dict[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    """Return the pairs of each `group/subgroup` that has genuine and impostor pairs.

    Args:
        scores: The pairs.
        rows: What `rows_by_group` returns.
    """
    if "subgroup" not in scores.extra:
        return {}
    found = {}
    for group, members in rows.items():
        codes = scores.extra["subgroup"][members]
        for code, name in enumerate(scores.names["subgroup"]):
            part = members[codes == code]
            genuine = scores.genuine[part]
            if name and genuine.any() and not genuine.all():
                found[f"{group}/{name}"] = part
    return found


def subgroup_points(
    scores: Scores, rows: dict[str, NDArray[np.int64]], threshold: float
) -> dict[str, OperatingPoint]:
    """Return the rates of each part of `subgroup_rows` at the global threshold."""
    return {
        name: GroupScores.of(scores.score[part], scores.genuine[part]).at(threshold)
        for name, part in subgroup_rows(scores, rows).items()
    }
