"""Faces with identities and groups: the one data type that training reads."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError

_FACE_SHAPE = (112, 112, 3)


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Aligned faces in memory or in a memory map.

    Attributes:
        images: uint8 RGB `(N, 112, 112, 3)`.
        identities: int64 `(N,)`; an identity belongs to one group.
        groups: int64 `(N,)`, index into `group_names`.
        group_names: Names of the groups; each has at least one face.

    Raises:
        DataError: Shapes or dtypes are wrong, a group is empty or has a single face, or an
            identity sits in two groups.
    """

    images: NDArray[np.uint8]
    identities: NDArray[np.int64]
    groups: NDArray[np.int64]
    group_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what training could only fail on later."""
        if self.images.dtype != np.uint8 or self.images.shape[1:] != _FACE_SHAPE:
            raise DataError(
                f"images are {self.images.dtype} {self.images.shape}: "
                "give uint8 RGB faces, (N, 112, 112, 3)."
            )
        rows = (len(self.images),)
        if self.identities.shape != rows or self.groups.shape != rows:
            raise DataError(
                f"{rows[0]} images, identities {self.identities.shape}, groups "
                f"{self.groups.shape}: give one identity and one group for every image."
            )
        if len(set(self.group_names)) != len(self.group_names):
            raise DataError(f"group names {self.group_names} repeat: name each group once.")
        if len(self.groups) and not 0 <= self.groups.min() <= self.groups.max() < len(
            self.group_names
        ):
            raise DataError(f"groups go beyond the {len(self.group_names)} group names.")
        for index, name in enumerate(self.group_names):
            count = int(np.count_nonzero(self.groups == index))
            if count < 2:
                raise DataError(
                    f"group {name!r} has {count} images: give it at least two, or leave it out."
                )
        couples = np.unique(np.stack([self.identities, self.groups]), axis=1)[0]
        repeated = couples[:-1][np.diff(couples) == 0]
        if len(repeated):
            raise DataError(
                f"identity {int(repeated[0])} is in two groups: an identity belongs to one."
            )

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.images)

    @property
    def identity_count(self) -> int:
        """Number of different identities."""
        return len(np.unique(self.identities))

    def class_labels(self) -> NDArray[np.int64]:
        """Return the identities renumbered 0 to `identity_count - 1`, int64 `(N,)`."""
        return np.unique(self.identities, return_inverse=True)[1].astype(np.int64)

    def select_group(self, name: str) -> Self:
        """Return the faces of one group.

        Raises:
            DataError: There is no such group.
        """
        if name not in self.group_names:
            raise DataError(f"group {name!r} is not among {', '.join(self.group_names)}.")
        rows = np.flatnonzero(self.groups == self.group_names.index(name))
        zeros = np.zeros(len(rows), np.int64)
        return type(self)(self.images[rows], self.identities[rows], zeros, (name,))
