from collections.abc import Callable

import numpy as np
import pytest

from mstkd_training.data.encoded import encode_face


def _face(number: int, kind: str = "PNG") -> bytes:
    """An encoded face of its own colours for each number; PNG keeps them exactly."""
    small = np.random.default_rng(number).integers(0, 256, (14, 14, 3), np.uint8)
    return encode_face(small.repeat(8, 0).repeat(8, 1), kind)


@pytest.fixture(scope="session")
def face() -> Callable[..., bytes]:
    return _face


@pytest.fixture(scope="session")
def people() -> list[tuple[str, str, bytes]]:
    """Group, identity and encoded face: two groups of 4 people of 3 pictures, in sorted order."""
    return [
        (group, f"{group.lower()}_{person}", _face(100 * place + 10 * person + picture))
        for place, group in enumerate(("Asian", "Indian"))
        for person in range(4)
        for picture in range(3)
    ]
