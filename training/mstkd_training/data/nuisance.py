"""What changes between two pictures of one face: pose, light, expression, occlusion, camera."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class NuisanceParameters:
    """Conditions of some pictures, each float32 `(N,)`, colours `(N, 3)`.

    Attributes:
        yaw: Turn of the head, about -1 to 1.
        pitch: Nod of the head, about -1 to 1.
        roll: Rotation in the image plane, radians.
        scale: Size of the face, about 1.
        shift_x: Misalignment, pixels.
        shift_y: Misalignment, pixels.
        light_x: Light from the left (-1) to the right (1).
        light_y: Light from above (-1) to below (1).
        exposure: Factor on all pixels.
        tint: Colour of the light, about 1.
        smile: Curve of the mouth, about -1 to 1.
        mouth_open: 0 to 1.
        eye_closure: 0 to 1.
        brow_raise: About -1 to 1.
        glasses: 1 where glasses are worn, else 0.
        scarf: Height of a scarf in pixels from the bottom, 0 for none.
        scarf_colour: 0 to 1.
        background: 0 to 1.
        blur: 0 (sharp) to 1.
        noise: Standard deviation of sensor noise, grey levels.
    """

    yaw: NDArray[np.float32]
    pitch: NDArray[np.float32]
    roll: NDArray[np.float32]
    scale: NDArray[np.float32]
    shift_x: NDArray[np.float32]
    shift_y: NDArray[np.float32]
    light_x: NDArray[np.float32]
    light_y: NDArray[np.float32]
    exposure: NDArray[np.float32]
    tint: NDArray[np.float32]
    smile: NDArray[np.float32]
    mouth_open: NDArray[np.float32]
    eye_closure: NDArray[np.float32]
    brow_raise: NDArray[np.float32]
    glasses: NDArray[np.float32]
    scarf: NDArray[np.float32]
    scarf_colour: NDArray[np.float32]
    background: NDArray[np.float32]
    blur: NDArray[np.float32]
    noise: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.yaw)

    def __getitem__(self, rows: slice) -> "NuisanceParameters":
        return NuisanceParameters(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def of(self, name: str) -> NDArray[np.float32]:
        """Return one value as `(N, 1, 1)`, ready to meet pixel grids."""
        value: NDArray[np.float32] = getattr(self, name)
        return value[:, np.newaxis, np.newaxis]


def sample_nuisance(count: int, seed: int, strength: float = 1.0) -> NuisanceParameters:
    """Draw the conditions of pictures.

    Args:
        count: Number of pictures.
        seed: Non-negative.
        strength: 0 for frontal, evenly lit, unoccluded faces on grey; 1 for the usual variety.
    """
    rng = np.random.default_rng([seed, 2])
    s = strength

    def normal(sigma: float) -> NDArray[np.float32]:
        return (s * sigma * np.clip(rng.standard_normal(count), -2, 2)).astype(np.float32)

    def uniform(low: float, high: float) -> NDArray[np.float32]:
        return rng.uniform(low, high, count).astype(np.float32)

    def rarely(probability: float) -> NDArray[np.float32]:
        return (rng.random(count) < s * probability).astype(np.float32)

    return NuisanceParameters(
        yaw=normal(0.4),
        pitch=normal(0.3),
        roll=normal(0.05),
        scale=1 + normal(0.03),
        shift_x=normal(1.5),
        shift_y=normal(1.5),
        light_x=normal(0.5),
        light_y=normal(0.4) - np.float32(0.2),
        exposure=1 + normal(0.15),
        tint=(1 + s * rng.uniform(-0.12, 0.12, (count, 3))).astype(np.float32),
        smile=normal(0.5),
        mouth_open=np.abs(normal(0.3)),
        eye_closure=np.abs(normal(0.25)),
        brow_raise=normal(0.4),
        glasses=rarely(0.12),
        scarf=rarely(0.1) * uniform(10, 22),
        scarf_colour=rng.uniform(0.1, 0.9, (count, 3)).astype(np.float32),
        background=(0.55 + s * rng.uniform(-0.4, 0.4, (count, 3))).astype(np.float32),
        blur=np.float32(min(s, 1.0)) * uniform(0, 0.9),
        noise=np.float32(s) * uniform(1, 6),
    )
