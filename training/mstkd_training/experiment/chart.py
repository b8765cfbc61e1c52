"""A picture of means with their intervals: a panel a figure, a row a method."""

from collections.abc import Mapping
from typing import Final

from mstkd_serve.fairness.report.svg import COLOURS, line, text
from mstkd_training.experiment.arms import ARMS, KINDS, Arm
from mstkd_training.experiment.statistics import Estimate

_PANELS: Final = (("accuracy", "accuracy, %"), ("std", "STD, points"), ("ser", "SER"))
_ROW, _TOP, _LEFT, _PANEL, _GAP = 30, 58, 110, 230, 24
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.frame{stroke:#999}.grid{stroke:#e4e4e4}"
    ".axis{font-weight:bold}"
)


def draw(summary: Mapping[Arm, Mapping[str, Estimate]]) -> str:
    """Return an SVG file: dots are means, lines their intervals, colours the kind of teachers."""
    methods = list(dict.fromkeys(arm.method for arm in ARMS))
    width = _LEFT + len(_PANELS) * (_PANEL + _GAP)
    bottom = _TOP + _ROW * len(methods)
    parts = [f'<rect width="{width}" height="{bottom + 40}" fill="white"/>']
    for place, kind in enumerate(KINDS):
        x = _LEFT + 150 * place
        parts += [_dot(x, 16, place), text(x + 10, 20, f"{kind} teachers", anchor="start")]
    for row, (adaptor, student) in enumerate(methods):
        label = f"{adaptor}, {student if student != 'none' else 'no student'}"
        parts.append(text(_LEFT - 10, _TOP + _ROW * (row + 0.5) + 4, label, anchor="end"))
    for panel, (metric, title) in enumerate(_PANELS):
        left = _LEFT + panel * (_PANEL + _GAP)
        parts.append(text(left + _PANEL / 2, _TOP - 12, title, "axis"))
        parts += _panel({arm: row[metric] for arm, row in summary.items()}, left, bottom)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {bottom + 40}">'
        f"<title>Means over seeds with 95 % intervals</title><style>{_STYLE}</style>"
        f"{''.join(parts)}</svg>\n"
    )


def _panel(values: Mapping[Arm, Estimate], left: int, bottom: int) -> list[str]:
    ends = [
        value.mean + side * (value.half_width or 0.0)
        for value in values.values()
        if value.mean is not None
        for side in (-1, 1)
    ]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.5
    low, high = low - room, high + room

    def place(value: float) -> float:
        return left + _PANEL * (value - low) / (high - low)

    parts = [line(left, bottom, left + _PANEL, bottom, "frame")]
    for tick in range(5):
        at = low + (high - low) * (0.1 + 0.2 * tick)
        parts += [
            line(place(at), _TOP, place(at), bottom, "grid"),
            text(place(at), bottom + 16, f"{at:.3g}"),
        ]
    methods = list(dict.fromkeys(arm.method for arm in ARMS))
    for arm, value in values.items():
        if value.mean is None:
            continue
        kind = KINDS.index(arm.teachers)
        y = _TOP + _ROW * (methods.index(arm.method) + 0.36 + 0.28 * kind)
        reach = value.half_width or 0.0
        stroke = f'stroke="{COLOURS[kind]}" stroke-width="2"'
        parts += [
            line(place(value.mean - reach), y, place(value.mean + reach), y, "mean", stroke),
            _dot(place(value.mean), y, kind),
        ]
    return parts


def _dot(x: float, y: float, kind: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[kind]}"/>'
