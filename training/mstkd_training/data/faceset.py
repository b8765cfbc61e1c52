"""Faces with identities and groups: the one data type that training reads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_training.data.images import Images

_FACE_SHAPE = (112, 112, 3)


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Aligned faces, in memory or read by row.

    Attributes:
        images: uint8 RGB `(N, 112, 112, 3)`.
        identities: int64 `(N,)`; an identity belongs to one group.
        groups: int64 `(N,)`, index into `group_names`.
        group_names: Names of the groups; each has at least two faces.
        held_out: bool `(N,)`, True where the identity is held out of training, to validate on;
            None holds out none.
        labelled: Whether it is known who the faces are; if not, each is an identity of its own.

    Raises:
        DataError: Shapes or dtypes are wrong, a group is empty or has a single face, or an
            identity sits in two groups or is held out in part.
    """

    images: Images
    identities: NDArray[np.int64]
    groups: NDArray[np.int64]
    group_names: tuple[str, ...]
    held_out: NDArray[np.bool_] | None = None
    labelled: bool = True

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
        if self.held_out is not None:
            if self.held_out.shape != rows or self.held_out.dtype != np.bool_:
                raise DataError(
                    f"held_out is {self.held_out.dtype} {self.held_out.shape}: "
                    f"give one truth value for each of the {rows[0]} images."
                )
            trained = self.identities[~self.held_out]
            shared = np.intersect1d(trained, self.identities[self.held_out])
            if len(shared):
                raise DataError(
                    f"identity {int(shared[0])} is held out in part: hold out all its images."
                )

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.images)

    @property
    def identity_count(self) -> int:
        """Number of different identities."""
        return len(np.unique(self.identities))

    def training_rows(self, group: str | None = None) -> NDArray[np.int64]:
        """Return the rows that are trained on, int64, rising.

        Args:
            group: Only those of this group.

        Raises:
            DataError: There is no such group.
        """
        rows = self.group_rows(group)
        return rows if self.held_out is None else rows[~self.held_out[rows]]

    def validation_rows(self, group: str | None = None) -> NDArray[np.int64]:
        """Return the rows that are held out of training, int64, rising, perhaps none.

        Args:
            group: Only those of this group.

        Raises:
            DataError: There is no such group.
        """
        rows = self.group_rows(group)
        return rows[:0] if self.held_out is None else rows[self.held_out[rows]]

    def group_rows(self, group: str | None) -> NDArray[np.int64]:
        """Return the rows of a group, of all groups if None, int64, rising.

        Raises:
            DataError: There is no such group.
        """
        if group is None:
            return np.arange(len(self), dtype=np.int64)
        if group not in self.group_names:
            raise DataError(f"group {group!r} is not among {', '.join(self.group_names)}.")
        return np.flatnonzero(self.groups == self.group_names.index(group))

    def class_labels(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the identities of some rows, of all if None, renumbered 0 to their number - 1.

        Returns:
            int64, one for each row, in the order of the rows.

        Raises:
            DataError: Nobody knows who the faces are.
        """
        if not self.labelled:
            raise DataError(
                "data.labelled is false, so there are no identities to train on: give the teachers "
                "and the adaptor with --use, and student.loss=a-kd."
            )
        chosen = self.identities if rows is None else self.identities[rows]
        return np.unique(chosen, return_inverse=True)[1].astype(np.int64)
