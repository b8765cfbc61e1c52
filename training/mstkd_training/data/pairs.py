"""Verification pairs within groups."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_training.data.faceset import FaceSet


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of faces, each within one group.

    Attributes:
        first: int64 `(P,)` index into the face set.
        second: int64 `(P,)` index into the face set, another face than `first`.
        genuine: bool `(P,)`, True where both faces are of one identity.
        groups: int64 `(P,)` index into the face set's group names.
        folds: int64 `(P,)`, the fold of a protocol that has some, from 0; else None.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    genuine: NDArray[np.bool_]
    groups: NDArray[np.int64]
    folds: NDArray[np.int64] | None = None


def make_pairs(
    faces: FaceSet,
    genuine_per_group: int,
    impostor_per_group: int,
    seed: int,
    *,
    rows: NDArray[np.int64] | None = None,
    at_most: bool = False,
) -> Pairs:
    """Draw different pairs within every group, without replacement.

    Args:
        faces: The faces.
        genuine_per_group: Pairs of one identity in each group.
        impostor_per_group: Pairs of two identities in each group.
        seed: Non-negative; equal seeds draw equal pairs.
        rows: Draw among these faces only, a few thousand of a group: all their couples are listed.
        at_most: A group with fewer pairs gives all that it has.

    Raises:
        DataError: A group has too few different pairs, with `at_most` none of one kind.
    """
    rng = np.random.default_rng([seed, 4])
    pool = faces.group_rows(None) if rows is None else rows
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], bool, int]] = []
    for group, name in enumerate(faces.group_names):
        members = pool[faces.groups[pool] == group]
        upper, lower = np.triu_indices(len(members), 1)
        same = faces.identities[members[upper]] == faces.identities[members[lower]]
        for genuine, asked in ((True, genuine_per_group), (False, impostor_per_group)):
            available = np.flatnonzero(same == genuine)
            wanted = min(asked, len(available)) if at_most and len(available) else asked
            if len(available) < wanted:
                raise DataError(
                    f"group {name!r} has {len(available)} "
                    f"{'genuine' if genuine else 'impostor'} pairs, {wanted} are wanted: "
                    "ask for fewer, or add images."
                )
            chosen = rng.choice(available, wanted, replace=False)
            parts.append((members[upper[chosen]], members[lower[chosen]], genuine, group))
    return Pairs(
        first=np.concatenate([part[0] for part in parts]),
        second=np.concatenate([part[1] for part in parts]),
        genuine=np.concatenate([np.full(len(part[0]), part[2]) for part in parts]),
        groups=np.concatenate([np.full(len(part[0]), part[3], np.int64) for part in parts]),
    )
