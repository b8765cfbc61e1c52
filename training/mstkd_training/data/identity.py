"""Who a rendered face is: identity factors, drawn from one distribution a group.

The groups are labels of synthetic distributions. They carry the names that the face-recognition
literature uses, so that recipes and tables read alike, but model no real people: what differs
between them is which drawing factors tell identities apart. That is all the method needs to
have something to specialise on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError

FACTORS: Final = (
    "head_width", "jaw", "eye_distance", "eye_width", "eye_height", "brow_height",
    "brow_thickness", "brow_tilt", "nose_width", "nose_length", "mouth_width", "lip_thickness",
    "hairline", "hair_volume", "skin_tone", "skin_hue", "hair_tone", "iris_tone",
    "cheek_texture", "chin_texture", "forehead_texture", "mole_x", "mole_y", "mole_strength",
)  # fmt: skip
"""The drawing factors; each is about standard normal where a group varies in it."""

_STRONG = 1.0
_WEAK = 0.22


@dataclass(frozen=True)
class GroupDistribution:
    """How a group's identities are distributed.

    Attributes:
        varied: Factors that tell this group's identities apart.
        mean: Mean of factors whose mean is not 0.
    """

    varied: frozenset[str]
    mean: Mapping[str, float]


GROUP_DISTRIBUTIONS: Final[Mapping[str, GroupDistribution]] = {
    "African": GroupDistribution(
        frozenset({"eye_distance", "eye_width", "brow_tilt", "cheek_texture", "mole_x", "jaw",
                   "mouth_width", "iris_tone"}),
        {"hair_volume": 0.8, "skin_tone": 0.5, "hairline": -0.4},
    ),
    "Asian": GroupDistribution(
        frozenset({"brow_height", "nose_length", "mouth_width", "chin_texture", "mole_y",
                   "head_width", "hairline", "brow_thickness"}),
        {"hair_tone": 0.7, "eye_height": -0.3, "skin_hue": 0.6},
    ),
    "Caucasian": GroupDistribution(
        frozenset({"eye_height", "lip_thickness", "nose_width", "forehead_texture", "jaw",
                   "hair_tone", "brow_thickness", "eye_distance"}),
        {"skin_tone": -0.6, "iris_tone": 0.6, "hair_volume": -0.4},
    ),
    "Indian": GroupDistribution(
        frozenset({"mole_strength", "mole_x", "nose_width", "hair_volume", "skin_hue",
                   "eye_width", "brow_height", "lip_thickness"}),
        {"skin_tone": 0.2, "hairline": 0.5, "brow_thickness": 0.5},
    ),
}  # fmt: skip
"""Table of the groups that can be rendered; add a row for another."""


@dataclass(frozen=True)
class IdentityParameters:
    """Drawing factors of some identities.

    Attributes:
        factors: float32 `(K, len(FACTORS))`.
    """

    factors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.factors)

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> "IdentityParameters":
        return IdentityParameters(self.factors[rows])

    def of(self, name: str) -> NDArray[np.float32]:
        """Return one factor as `(K, 1, 1)`, ready to meet pixel grids."""
        return self.factors[:, FACTORS.index(name), np.newaxis, np.newaxis]


def sample_identities(group: str, count: int, seed: int) -> IdentityParameters:
    """Draw identities of a group; the first k of a larger count are the same.

    Args:
        group: A key of `GROUP_DISTRIBUTIONS`.
        count: Number of identities, at least 1.
        seed: Non-negative.

    Raises:
        DataError: The group is unknown.
    """
    if group not in GROUP_DISTRIBUTIONS:
        raise DataError(
            f"group {group!r} cannot be rendered: choose among {', '.join(GROUP_DISTRIBUTIONS)}."
        )
    distribution = GROUP_DISTRIBUTIONS[group]
    index = list(GROUP_DISTRIBUTIONS).index(group)
    scale = np.array([_STRONG if name in distribution.varied else _WEAK for name in FACTORS])
    mean = np.array([distribution.mean.get(name, 0.0) for name in FACTORS])
    rng = np.random.default_rng([seed, index, 1])
    factors = mean + scale * np.clip(rng.standard_normal((count, len(FACTORS))), -2.5, 2.5)
    return IdentityParameters(factors.astype(np.float32))
