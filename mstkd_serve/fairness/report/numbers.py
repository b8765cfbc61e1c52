"""Figures as people read them; what is undefined is said in a word."""

from mstkd_serve.fairness.schema import Interval

UNDEFINED = "undefined"
_PERCENT = "\u00a0%"  # the space does not break


def percent(value: float) -> str:
    """Show an accuracy that is in percent."""
    return f"{value:.2f}{_PERCENT}"


def rate(value: float) -> str:
    """Show a fraction as percent, with digits for small ones."""
    shown = 100 * value
    digits = ".2f" if shown >= 0.1 or shown == 0 else ".2g"
    return f"{shown:{digits}}{_PERCENT}"


def plain(value: float | None, digits: int = 3) -> str:
    """Show a figure without unit."""
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def span(interval: Interval | None, scale: float = 1.0, digits: int = 2) -> str:
    """Show an interval, or nothing."""
    if interval is None:
        return ""
    return f"{scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f}"
