"""The HTML page: what was measured, for a reader in a hurry first and in full after."""

from collections.abc import Sequence
from html import escape

from mstkd_serve import __version__
from mstkd_serve.fairness.report.charts import det_chart, fmr_chart, histogram_chart
from mstkd_serve.fairness.report.numbers import percent, plain, rate, span
from mstkd_serve.fairness.report.style import STYLE
from mstkd_serve.fairness.report.tables import (
    calibration_table,
    comparison_table,
    groups_table,
    measures_table,
    table,
    tar_table,
)
from mstkd_serve.fairness.schema import Metrics


def report_page(metrics: Metrics, compare: Sequence[Metrics] = ()) -> str:
    """Return the page; it loads nothing from anywhere and runs no script."""
    name = metrics.model.name or "Face verifier"
    summary = metrics.summary
    sections = [
        _summary(metrics),
        _section("Groups under both threshold policies", groups_table(metrics), _POLICIES),
        _section("False match rate by group", f"<figure>{fmr_chart(metrics)}</figure>"),
        _section("Error trade-off", f"<figure>{det_chart(metrics)}</figure>", _DET),
        _section(
            "Scores",
            '<div class="charts">'
            + "".join(
                f"<figure>{histogram_chart(group, values, summary.threshold)}</figure>"
                for group, values in metrics.groups.items()
            )
            + "</div>",
            _SCORES,
        ),
        _section("Accept rates at false accept rates", tar_table(metrics), _TAR),
        _section("Fairness figures", measures_table(metrics), _FAIRNESS),
        _section("Thresholds for false match rates", calibration_table(metrics)),
    ]
    if metrics.subgroups:
        rows = [
            (key, percent(point.accuracy), rate(point.fmr), rate(point.fnmr))
            for key, point in metrics.subgroups.items()
        ]
        sections.append(_section("Subgroups", table(("subgroup", "accuracy", "FMR", "FNMR"), rows)))
    if metrics.cross_group_fmr:
        crossed = [(key, rate(value)) for key, value in metrics.cross_group_fmr.items()]
        sections.append(
            _section("Impostors across groups", table(("groups", "false match rate"), crossed))
        )
    if compare:
        sections.append(
            _section("Against other models", comparison_table([metrics, *compare]), _COMPARE)
        )
    sections.append(_about(metrics))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: verification across groups</title><style>{STYLE}</style></head>"
        f"<body><main><header><h1>{escape(name)}</h1>"
        f"<p>Face verification across {metrics.data.groups} groups, {metrics.data.pairs:,} pairs "
        f"of {escape(metrics.data.source)}</p></header>{''.join(sections)}</main></body></html>\n"
    )


def _section(title: str, content: str, note: str = "") -> str:
    explained = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{explained}{content}</section>"


def _summary(metrics: Metrics) -> str:
    summary = metrics.summary
    worst = min(metrics.groups, key=lambda name: metrics.groups[name].accuracy)
    best = max(metrics.groups, key=lambda name: metrics.groups[name].accuracy)
    gap = metrics.groups[best].accuracy - metrics.groups[worst].accuracy
    tiles = [
        ("Mean accuracy", percent(summary.accuracy_mean), span(summary.accuracy_mean_interval)),
        (f"Worst group: {worst}", percent(metrics.groups[worst].accuracy), f"best: {best}"),
        ("STD over groups", f"{summary.std:.2f}", span(summary.std_interval)),
        ("Largest error / smallest", plain(summary.ser, 2), "SER; 1 is fair"),
    ]
    shown = "".join(
        f'<div class="tile"><span>{escape(label)}</span><strong>{escape(value)}</strong>'
        f"<small>{escape(detail)}</small></div>"
        for label, value, detail in tiles
    )
    source = "chosen on these pairs" if summary.threshold_source != "given" else "given"
    verdict = (
        f"At one threshold of {summary.threshold:.3f} for everybody ({source}), the model decides "
        f"{percent(summary.accuracy_mean)} of pairs rightly on average. Between {best} and {worst} "
        f"lie {gap:.2f} points. With a threshold of its own for each group the mean is "
        f"{percent(summary.per_group_thresholds.accuracy_mean)} and the STD "
        f"{summary.per_group_thresholds.std:.2f} instead of {summary.std:.2f}."
    )
    return (
        f'<section class="summary">{_warnings(metrics)}<div class="tiles">{shown}</div>'
        f"<p>{escape(verdict)}</p></section>"
    )


def _warnings(metrics: Metrics) -> str:
    boxes = []
    for severity, title in (("serious", "Do not rely on these figures"), ("note", "Mind")):
        chosen = [caution for caution in metrics.warnings if caution.severity == severity]
        if chosen:
            items = "".join(f"<li>{escape(caution.message)}</li>" for caution in chosen)
            boxes.append(
                f'<aside class="{severity}" role="note"><h2>{title}</h2><ul>{items}</ul></aside>'
            )
    return "".join(boxes)


def _about(metrics: Metrics) -> str:
    identities = metrics.data.identities
    facts = [
        ("Model", metrics.model.name or "unknown"),
        ("Face contract", metrics.model.contract_id or "unknown"),
        ("Data", metrics.data.source),
        ("Identities", "unknown" if identities is None else f"{identities:,}"),
        ("Decision rule", f"accept where score >= {metrics.summary.threshold:.6f}"),
        ("STD", f"ddof {metrics.summary.std_ddof}"),
        ("Written by", f"mstkd-serve {__version__}"),
    ]
    return _section("What was measured", table(("", ""), facts), _LIMITS)


_POLICIES = (
    "One global threshold is what a deployment has. A threshold for each group shows what the "
    "scores could give; the choice of policy can reverse the ranking of two models."
)
_DET = (
    "Normal-deviate axes: scores that are normally distributed give straight lines. Lower left is "
    "better. Dots: each group at the global threshold. Rates of 0 have no place here."
)
_SCORES = (
    "Impostor pairs (orange) and genuine pairs (blue), each scaled to its own height; the dashed "
    "line is the global threshold."
)
_TAR = (
    "At each group's own threshold for the rate. Too few pairs: fewer than 10 false matches would "
    "be expected, so the figure says little."
)
_FAIRNESS = (
    "Ratios with a zero in them are undefined; the smoothed ones ((errors + 0.5) / (pairs + 1)) "
    "always exist but shrink towards 1 where there are few pairs."
)
_COMPARE = (
    "At each model's own global threshold. Differences smaller than the 95 % intervals are noise."
)
_LIMITS = (
    "The figures hold for these pairs and these groups. Group labels are coarse, and equal error "
    "rates here do not show that a use of face recognition is fair or lawful."
)
