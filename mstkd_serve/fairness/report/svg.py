"""Drawing with SVG elements: a frame, ticks, lines; everything that is text is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#56B4E9")
"""Okabe and Ito's palette, which colour-blind readers tell apart (the yellow darkened)."""
DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")
"""Dashes that stand for the groups in black and white."""


@dataclass(frozen=True)
class Frame:
    """A plotting area in a picture, in pixels."""

    width: int
    height: int
    left: int = 64
    right: int = 16
    top: int = 14
    bottom: int = 44

    def x(self, share: float) -> float:
        """Return the place of a share of the area's width."""
        return self.left + share * (self.width - self.left - self.right)

    def y(self, share: float) -> float:
        """Return the place of a share of the area's height, from below."""
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


def picture(frame: Frame, title: str, description: str, parts: Sequence[str]) -> str:
    """Return an SVG element that scales with the page and names itself to screen readers."""
    return (
        f'<svg role="img" viewBox="0 0 {frame.width} {frame.height}" '
        f'style="max-width:{frame.width}px">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str, extra: str = "") -> str:
    """Return a straight line with a CSS class."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {extra}/>'


def text(x: float, y: float, content: str, css: str = "tick", anchor: str = "middle") -> str:
    """Return text with a CSS class."""
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def upright(x: float, y: float, content: str) -> str:
    """Return an axis title that reads from below."""
    return (
        f'<text class="axis" text-anchor="middle" '
        f'transform="translate({x:.1f} {y:.1f}) rotate(-90)">{escape(content)}</text>'
    )


def path(points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> str:
    """Return a polyline."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.8" '
        f'stroke-dasharray="{dash}"/>'
    )


def style_of(index: int) -> tuple[str, str]:
    """Return colour and dash of a group by its place."""
    return COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
