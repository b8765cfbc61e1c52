"""Draw faces from identity and nuisance parameters, in numpy, at the ArcFace template."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mstkd_training.data.identity import IdentityParameters
from mstkd_training.data.nuisance import NuisanceParameters

Plane = NDArray[np.floating[Any]]
Size = Plane | float

SIDE: Final = 112
_BATCH = 8
_CENTRE_X, _CENTRE_Y = 56.0, 70.0
# The ArcFace five-point template for 112x112 (Deng et al., CVPR 2019), made symmetric.
EYE_OFFSET: Final = (73.5318 - 38.2946) / 2
EYE_Y: Final = 51.6
NOSE_Y: Final = 71.7366
MOUTH_Y: Final = 92.285
MOUTH_HALF: Final = (70.7299 - 41.5493) / 2

_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


def render(
    identities: IdentityParameters, nuisance: NuisanceParameters, seed: int = 0
) -> NDArray[np.uint8]:
    """Draw one picture for each row.

    Args:
        identities: Who; `N` rows (repeat an identity to draw it several times).
        nuisance: How; `N` rows.
        seed: Of the sensor noise; picture `i` depends on rows `i`, on `seed` and on `i` alone.

    Returns:
        uint8 RGB `(N, 112, 112, 3)`.
    """
    pictures = np.empty((len(identities), SIDE, SIDE, 3), np.uint8)
    for start in range(0, len(pictures), _BATCH):
        rows = slice(start, start + _BATCH)
        drawn = _draw(identities[rows], nuisance[rows])
        for offset, picture in enumerate(drawn):
            rng = np.random.default_rng([seed, start + offset, 3])
            picture += nuisance.noise[start + offset] * rng.standard_normal(
                picture.shape, np.float32
            )
        pictures[rows] = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    return pictures


def _inside(distance: Plane, softness: float = 0.8) -> Plane:
    """Turn a signed distance in pixels (negative inside) into coverage, 0 to 1."""
    coverage: Plane = np.clip(0.5 - distance / (2 * softness), 0, 1)
    return coverage


def _ellipse(x: Plane, y: Plane, half_width: Size, half_height: Size) -> Plane:
    """Return roughly the signed distance to an ellipse at the origin, pixels."""
    radius = np.sqrt((x / half_width) ** 2 + (y / half_height) ** 2)
    distance: Plane = (radius - 1) * np.minimum(half_width, half_height)
    return distance


def _paint(canvas: Plane, coverage: Plane, colour: Plane) -> None:
    """Lay a colour `(N, 1, 1, 3)` or `(N, H, W, 3)` over the canvas."""
    canvas += coverage[..., np.newaxis] * (colour - canvas)


def _rgb(*channels: Plane | float) -> Plane:
    return np.stack(np.broadcast_arrays(*(np.asarray(c, np.float32) for c in channels)), -1)


def _draw(who: IdentityParameters, how: NuisanceParameters) -> Plane:
    """Draw without noise: float32 `(N, 112, 112, 3)`, grey levels."""
    x, y = _face_frame(how)
    canvas = np.broadcast_to(
        how.background[:, np.newaxis, np.newaxis, :], (len(who), SIDE, SIDE, 3)
    ).copy()
    tone, hue = who.of("skin_tone"), who.of("skin_hue")
    light = 0.62 - 0.11 * tone
    skin = _rgb(light + 0.12 + 0.02 * hue, light, light - 0.1 - 0.03 * hue)
    dark = 0.22 - 0.07 * who.of("hair_tone")
    hair = _rgb(dark + 0.06, dark, dark - 0.03)

    half_width = 42 + 2.6 * who.of("head_width")
    narrowing = 0.25 + 0.09 * who.of("jaw")
    below = np.clip((y - 60) / 52, 0, 1.2)
    head = _ellipse(x - _CENTRE_X, y - 62, half_width * (1 - narrowing * below**2), 54)
    volume = 5 + 2.4 * who.of("hair_volume")
    _paint(canvas, _inside(_ellipse(x - _CENTRE_X, y - 50, half_width + volume, 50 + volume)), hair)
    _paint(canvas, _inside(head), skin * _shading(x, y, who, how)[..., np.newaxis])
    hairline = 24 + 4 * who.of("hairline") + 0.004 * (x - _CENTRE_X) ** 2
    _paint(canvas, _inside(head) * _inside(y - hairline, 1.5), hair)
    _draw_moles(canvas, x, y, who)
    for side in (-1, 1):
        _draw_eye(canvas, x, y, side, who, how, skin, hair)
    _draw_nose(canvas, x, y, who, skin)
    _draw_mouth(canvas, x, y, who, how, skin)
    _draw_occlusion(canvas, x, y, how)
    canvas *= (how.of("exposure")[..., np.newaxis] * how.tint[:, np.newaxis, np.newaxis, :]) * 255
    return _blurred(canvas, how.of("blur")[..., np.newaxis])


def _face_frame(how: NuisanceParameters) -> tuple[Plane, Plane]:
    """Return for each pixel the place on the unposed face that it shows."""
    cos, sin = np.cos(how.of("roll")), np.sin(how.of("roll"))
    dx = (_X - _CENTRE_X - how.of("shift_x")) / how.of("scale")
    dy = (_Y - _CENTRE_Y - how.of("shift_y")) / how.of("scale")
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    # The nearer a point is to the viewer, the further a turn of the head moves it.
    near = np.exp(-(x**2 + y**2) / (2 * 30**2))
    x = x * (1 + 0.05 * how.of("yaw") * np.sign(x)) - 7 * how.of("yaw") * near
    y = y - 6 * how.of("pitch") * near
    return x + _CENTRE_X, y + _CENTRE_Y


def _shading(x: Plane, y: Plane, who: IdentityParameters, how: NuisanceParameters) -> Plane:
    """Light on a rounded head, and the skin's slow texture."""
    u, v = (x - _CENTRE_X) / 45, (y - 64) / 55
    lit: Plane = (
        1 + 0.3 * how.of("light_x") * u + 0.3 * how.of("light_y") * v - 0.14 * (u**2 + v**2)
    )
    for factor, place, sharpness in (
        ("cheek_texture", (np.abs(u) - 0.5) ** 2 + (v - 0.15) ** 2, 22),
        ("chin_texture", u**2 + (v - 0.72) ** 2, 26),
        ("forehead_texture", u**2 + (v + 0.45) ** 2, 26),
    ):
        lit = lit + 0.07 * who.of(factor) * np.exp(-sharpness * place)
    return lit


def _draw_moles(canvas: Plane, x: Plane, y: Plane, who: IdentityParameters) -> None:
    at_x = _CENTRE_X + 20 + 5 * who.of("mole_x")
    at_y = 80 + 5 * who.of("mole_y")
    strength = np.clip(0.45 + 0.4 * who.of("mole_strength"), 0, 1)
    spot = _inside(_ellipse(x - at_x, y - at_y, 2.2, 2.2))
    _paint(canvas, strength * spot, _rgb(0.2, 0.13, 0.1))


def _draw_eye(
    canvas: Plane, x: Plane, y: Plane, side: int, who: IdentityParameters,
    how: NuisanceParameters, skin: Plane, hair: Plane,
) -> None:  # fmt: skip
    at_x = _CENTRE_X + side * (EYE_OFFSET + 1.5 * who.of("eye_distance"))
    ex, ey = (x - at_x) * side, y - EYE_Y
    width = 7.6 + 1.1 * who.of("eye_width")
    openness = 1 - 0.75 * np.clip(how.of("eye_closure"), 0, 1)
    height = (4.0 + 0.8 * who.of("eye_height")) * openness
    _paint(canvas, _inside(_ellipse(ex, ey, width + 1.6, height + 1.6)), skin * 0.72)
    white = _inside(_ellipse(ex, ey, width, height))
    _paint(canvas, white, _rgb(0.92, 0.92, 0.9))
    iris = 0.3 + 0.13 * who.of("iris_tone")
    disc = _ellipse(ex + 2 * side * -how.of("yaw"), ey, 3.6, 3.6)
    _paint(canvas, white * _inside(disc), _rgb(iris, iris * 0.9, iris + 0.05))
    _paint(canvas, white * _inside(disc + 2.0), _rgb(0.05, 0.05, 0.05))
    brow_y = ey + 9.5 + 1.5 * who.of("brow_height") + 1.5 * how.of("brow_raise")
    brow_y = brow_y + (0.08 + 0.1 * who.of("brow_tilt")) * ex + 0.02 * ex**2
    thickness = 1.7 + 0.5 * who.of("brow_thickness")
    _paint(canvas, _inside(np.abs(brow_y) - thickness) * _inside(np.abs(ex) - 9.5, 1.5), hair)


def _draw_nose(canvas: Plane, x: Plane, y: Plane, who: IdentityParameters, skin: Plane) -> None:
    nx = x - _CENTRE_X
    tip = NOSE_Y + 1.8 * who.of("nose_length")
    width = 6.0 + 1.1 * who.of("nose_width")
    along = np.clip((y - EYE_Y) / (tip - EYE_Y), 0, 1)
    ridge = np.exp(-((np.abs(nx) - width * 0.55 * (0.4 + along)) ** 2) / 4)
    _paint(canvas, 0.5 * ridge * along * _inside(y - tip - 2, 2), skin * 0.7)
    _paint(canvas, 0.5 * _inside(_ellipse(nx, y - tip + 2, width * 0.5, 4), 2), skin * 1.12)
    for side in (-1, 1):
        nostril = _ellipse(nx - side * width * 0.55, y - tip - 2.5, width * 0.28, 1.5)
        _paint(canvas, 0.8 * _inside(nostril), skin * 0.35)


def _draw_mouth(
    canvas: Plane, x: Plane, y: Plane, who: IdentityParameters,
    how: NuisanceParameters, skin: Plane,
) -> None:  # fmt: skip
    mx = x - _CENTRE_X
    width = MOUTH_HALF + 1.6 * who.of("mouth_width") + 1.2 * how.of("smile")
    my = y - MOUTH_Y + 0.012 * how.of("smile") * (mx**2 - 60)
    opening = 5 * how.of("mouth_open")
    thickness = 3.0 + 0.8 * who.of("lip_thickness")
    lips = _inside(_ellipse(mx, my, width, thickness + opening))
    _paint(canvas, lips, skin * np.array([0.85, 0.5, 0.52], np.float32))
    _paint(canvas, lips * _inside(np.abs(my) - opening * 0.8 - 0.5), _rgb(0.2, 0.06, 0.07))


def _draw_occlusion(canvas: Plane, x: Plane, y: Plane, how: NuisanceParameters) -> None:
    frame = np.zeros_like(x)
    for side in (-1, 1):
        lens = np.abs(_ellipse(x - _CENTRE_X - side * EYE_OFFSET, y - EYE_Y - 1,
                               14, 11))  # fmt: skip
        frame = np.maximum(frame, _inside(lens - 1.1))
    _paint(canvas, how.of("glasses") * frame, _rgb(0.08, 0.08, 0.1))
    fold = y - (SIDE - how.of("scarf")) + 0.003 * (x - _CENTRE_X) ** 2
    worn = (how.of("scarf") > 0).astype(np.float32)
    _paint(canvas, worn * _inside(-fold), how.scarf_colour[:, np.newaxis, np.newaxis, :])


def _blurred(canvas: Plane, amount: Plane) -> Plane:
    """Mix each picture with its 5x5 binomial blur."""
    blurred: Plane = canvas
    for axis in (1, 2):
        padded = np.pad(blurred, [(2, 2) if a == axis else (0, 0) for a in range(4)], "edge")
        parts = [np.take(padded, range(k, k + SIDE), axis) for k in range(5)]
        blurred = (parts[0] + parts[4] + 4 * (parts[1] + parts[3]) + 6 * parts[2]) / 16
    return canvas + amount * (blurred - canvas)
