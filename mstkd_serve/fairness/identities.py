"""Who is in the pairs, where the scores say so."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.fairness.scores import Scores

COLUMNS: Final = ("first_identity", "second_identity")


def identity_names(scores: Scores) -> set[str] | None:
    """Return all identities; None where a column is missing or leaves a face unnamed."""
    if not all(column in scores.names for column in COLUMNS):
        return None
    names = {name for column in COLUMNS for name in scores.names[column]}
    return None if "" in names else names


def joint_codes(scores: Scores) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Give both columns of identities codes in common, in the order of their names.

    Returns:
        int32 `(P,)` of the first and of the second faces; None as with `identity_names`.
    """
    names = identity_names(scores)
    if names is None:
        return None
    place = {name: code for code, name in enumerate(sorted(names))}
    first, second = (
        np.array([place[name] for name in scores.names[column]], np.int32)[scores.extra[column]]
        for column in COLUMNS
    )
    return first, second


def contradictions(scores: Scores) -> int:
    """Count genuine pairs of two identities and impostor pairs of one."""
    codes = joint_codes(scores)
    if codes is None:
        return 0
    return int(np.count_nonzero((codes[0] == codes[1]) != scores.genuine))
