"""The report's charts: DET curves, score histograms, false match rates."""

from math import ceil, floor, log10
from statistics import NormalDist

from mstkd_serve.fairness.report.numbers import rate
from mstkd_serve.fairness.report.svg import (
    Frame,
    line,
    path,
    picture,
    style_of,
    text,
    upright,
)
from mstkd_serve.fairness.schema import GroupMetrics, Metrics

_DET_TICKS = (1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2, 0.4)
_DET_LOW, _DET_HIGH = 5e-5, 0.5


def _deviate(value: float) -> float:
    """Return the place of a rate on a normal-deviate axis, 0 to 1."""
    normal = NormalDist()
    low, high = normal.inv_cdf(_DET_LOW), normal.inv_cdf(_DET_HIGH)
    clipped = min(max(value, _DET_LOW), _DET_HIGH)
    return (normal.inv_cdf(clipped) - low) / (high - low)


def det_chart(metrics: Metrics) -> str:
    """Draw FNMR over FMR for every group on normal-deviate axes (Martin et al., 1997).

    A dot marks each group at the global threshold. Points where a rate is 0 have no place on
    these axes and are left out.
    """
    frame = Frame(640, 420)
    parts = []
    for tick in _DET_TICKS:
        x, y = frame.x(_deviate(tick)), frame.y(_deviate(tick))
        parts += [
            line(x, frame.y(0), x, frame.y(1), "grid"),
            line(frame.x(0), y, frame.x(1), y, "grid"),
            text(x, frame.y(0) + 16, f"{100 * tick:g} %"),
            text(frame.x(0) - 6, y + 4, f"{100 * tick:g} %", anchor="end"),
        ]
    parts.append(text(frame.x(0.5), frame.height - 6, "false match rate", "axis"))
    parts.append(upright(14, frame.y(0.5), "false non-match rate"))
    for index, (name, group) in enumerate(metrics.groups.items()):
        colour, dash = style_of(index)
        points = [
            (frame.x(_deviate(fmr)), frame.y(_deviate(fnmr)))
            for fmr, fnmr in zip(group.det.fmr, group.det.fnmr, strict=True)
            if _DET_LOW <= fmr <= _DET_HIGH and _DET_LOW <= fnmr <= _DET_HIGH
        ]
        if len(points) > 1:
            parts.append(path(points, colour, dash))
        if group.fmr > 0 and group.fnmr > 0:
            x, y = frame.x(_deviate(group.fmr)), frame.y(_deviate(group.fnmr))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
        y = frame.top + 16 + 18 * index
        parts.append(path([(frame.x(0.72), y - 4), (frame.x(0.78), y - 4)], colour, dash))
        parts.append(text(frame.x(0.79), y, name, "legend", "start"))
    return picture(
        frame,
        "Detection error trade-off by group",
        "The lower left is better; curves that lie apart mean unequal treatment.",
        parts,
    )


def histogram_chart(name: str, group: GroupMetrics, threshold: float) -> str:
    """Draw how genuine and impostor scores of one group are distributed."""
    frame = Frame(360, 220, left=40, bottom=40)
    edges = group.histogram.edges
    low, high = edges[0], edges[-1]
    parts = [line(frame.x(0), frame.y(0), frame.x(1), frame.y(0), "frame")]
    for counts, css in (
        (group.histogram.impostor, "impostor"),
        (group.histogram.genuine, "genuine"),
    ):
        # Each kind is scaled to its own total, so that both are seen.
        tallest = max(max(counts) / max(sum(counts), 1), 1e-9)
        corners = [(frame.x(0), frame.y(0))]
        for index, count in enumerate(counts):
            y = frame.y(0.95 * count / max(sum(counts), 1) / tallest)
            for edge in (edges[index], edges[index + 1]):
                corners.append((frame.x((edge - low) / (high - low)), y))
        corners.append((frame.x(1), frame.y(0)))
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        parts.append(f'<polygon class="{css}" points="{joined}"/>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * (high - low)
        parts.append(text(frame.x(share), frame.y(0) + 15, f"{value:.2f}"))
    if low <= threshold <= high:
        x = frame.x((threshold - low) / (high - low))
        parts.append(line(x, frame.y(0), x, frame.y(1), "threshold"))
    parts.append(text(frame.x(0.5), frame.height - 6, "score", "axis"))
    parts.append(text(frame.x(0.5), frame.top, name, "legend"))
    return picture(
        frame,
        f"Scores of {name}",
        f"Impostor pairs left, genuine pairs right, threshold {threshold:.3f}.",
        parts,
    )


def fmr_chart(metrics: Metrics) -> str:
    """Draw each group's FMR at the global threshold with its interval, on a logarithmic axis."""
    rows = list(metrics.groups.items())
    frame = Frame(640, 60 + 34 * len(rows), left=130, top=8)
    shown = [group.fmr for _, group in rows if group.fmr > 0]
    lowest = min([*shown, *(i.low for _, g in rows if (i := g.fmr_interval) and i.low > 0), 1e-1])
    low, high = _decade(lowest, down=True), _decade(max([*shown, 1e-3]), down=False)

    def x(value: float) -> float:
        return frame.x((log10(value) - log10(low)) / (log10(high) - log10(low)))

    parts = []
    tick = low
    while tick <= high * 1.001:
        parts.append(line(x(tick), frame.y(0), x(tick), frame.y(1), "grid"))
        parts.append(text(x(tick), frame.y(0) + 16, f"{100 * tick:g} %"))
        tick *= 10
    for index, (name, group) in enumerate(rows):
        y = frame.y(1 - (index + 0.5) / len(rows))
        colour, _ = style_of(index)
        parts.append(text(frame.left - 10, y + 4, name, "legend", "end"))
        if group.fmr == 0:
            parts.append(text(frame.x(0) + 4, y + 4, "no false match seen", "tick", "start"))
            continue
        if group.fmr_interval is not None:
            start, end = max(group.fmr_interval.low, low), min(group.fmr_interval.high, high)
            parts.append(line(x(start), y, x(end), y, "whisker", f'stroke="{colour}"'))
        parts.append(f'<circle cx="{x(group.fmr):.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(text(x(group.fmr), y - 9, rate(group.fmr)))
    parts.append(
        text(frame.x(0.5), frame.height - 6, "false match rate at the global threshold", "axis")
    )
    return picture(
        frame,
        "False match rate by group",
        "Groups further right are more often mistaken for somebody else.",
        parts,
    )


def _decade(value: float, *, down: bool) -> float:
    """Return the power of ten at or beyond a value."""
    exponent = floor(log10(value)) if down else ceil(log10(value))
    return float(10.0**exponent)
