"""Who is trained on: identities held out for validation, and disjoint parts of the others."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.pairs import Pairs, make_pairs

_LEAST = 2
"""Identities that each side of a split needs: fewer make no impostor pair, or no class."""

_SCANNED = 2048
"""Held-out images of a group that pairs are drawn among; all couples of them are listed."""


def hold_out(
    identities: NDArray[np.int64],
    groups: NDArray[np.int64],
    group_names: Sequence[str],
    share: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Choose the identities that training does not see.

    Of every group the same share is drawn, at least two identities. Only identities with two
    images or more are drawn, for one image makes no genuine pair.

    Args:
        identities: int64 `(N,)`.
        groups: int64 `(N,)`, the same for all images of an identity.
        group_names: The names of the groups.
        share: Share of each group's identities, 0 to less than 1; 0 holds out none.
        seed: Non-negative; equal seeds choose equal identities.

    Returns:
        bool `(N,)`, True where the image is held out.

    Raises:
        DataError: A group has too few identities to share out.
    """
    held_out = np.zeros(len(identities), np.bool_)
    if share == 0:
        return held_out
    for group, name in enumerate(group_names):
        found, counts = np.unique(identities[groups == group], return_counts=True)
        eligible = found[counts >= 2]
        wanted = max(_LEAST, round(share * len(found)))
        if len(eligible) < wanted or len(found) - wanted < _LEAST:
            raise DataError(
                f"group {name!r} has {len(found)} identities, {len(eligible)} of them with two "
                f"images or more: {wanted} cannot be held out for validation, with "
                f"{_LEAST} left to train on. Add identities, or set data.validation.share=0."
            )
        rng = np.random.default_rng([seed, 5, group])
        chosen = rng.choice(eligible, wanted, replace=False)
        held_out |= np.isin(identities, chosen) & (groups == group)
    return held_out


def validation_pairs(
    faces: FaceSet, genuine_per_group: int, impostor_per_group: int, seed: int
) -> Pairs:
    """Draw pairs among the held-out identities of every group.

    Where a group has fewer pairs than asked for, it gives all that it has.

    Args:
        faces: Faces of which some are held out.
        genuine_per_group: Most pairs of one identity in a group.
        impostor_per_group: Most pairs of two identities in a group.
        seed: Non-negative; equal seeds draw equal pairs.

    Returns:
        Pairs that index `faces`, group by group.

    Raises:
        DataError: No identities are held out.
    """
    if not faces.validation_rows().size:
        raise DataError(
            "no identities are held out for validation: set data.validation.share above 0."
        )
    rng = np.random.default_rng([seed, 6])
    rows = np.concatenate(
        [_few_of(faces, faces.validation_rows(name), rng) for name in faces.group_names]
    )
    return make_pairs(faces, genuine_per_group, impostor_per_group, seed, rows=rows, at_most=True)


def generalist_parts(
    faces: FaceSet, rows: NDArray[np.int64], parts: int, seed: int
) -> list[NDArray[np.int64]]:
    """Deal identities into parts that share none and hold as many of each group.

    This is the paper's baseline of "generalist" teachers: as many parts as groups, each with
    a quarter of the identities of each of four groups.

    Args:
        faces: The faces.
        rows: int64, the rows to deal, usually `faces.training_rows()`.
        parts: Number of parts, 1 or more.
        seed: Non-negative; equal seeds deal equal parts.

    Returns:
        For each part its rows, rising. The numbers of identities of a group differ by one at
        most between parts.

    Raises:
        DataError: A group has fewer than two identities for each part.
    """
    dealt: list[list[NDArray[np.int64]]] = [[] for _ in range(parts)]
    for group, name in enumerate(faces.group_names):
        members = rows[faces.groups[rows] == group]
        identities = np.unique(faces.identities[members])
        if len(identities) < _LEAST * parts:
            raise DataError(
                f"group {name!r} has {len(identities)} identities to train on: {parts} generalist "
                f"teachers need {_LEAST * parts} or more of every group."
            )
        shuffled = np.random.default_rng([seed, 7, group]).permutation(identities)
        for part in range(parts):
            # Rotated by group, so that the parts that get one more are not always the same.
            mine = shuffled[(part + group) % parts :: parts]
            dealt[part].append(members[np.isin(faces.identities[members], mine)])
    return [np.sort(np.concatenate(part)) for part in dealt]


def _few_of(faces: FaceSet, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most about `_SCANNED` of the rows, some of every identity."""
    if len(rows) <= _SCANNED:
        return rows
    identities, numbers = np.unique(faces.identities[rows], return_inverse=True)
    each = max(2, math.ceil(_SCANNED / len(identities)))
    order = rng.permutation(len(rows))
    order = order[np.argsort(numbers[order], kind="stable")]
    sorted_numbers = numbers[order]
    starts = np.searchsorted(sorted_numbers, sorted_numbers)
    return np.sort(rows[order[np.arange(len(order)) - starts < each]])
