"""The report's tables, as HTML."""

from collections.abc import Iterable, Sequence
from html import escape

from mstkd_serve.fairness.report.numbers import percent, plain, rate, span
from mstkd_serve.fairness.schema import FAR_TARGETS, Metrics

_MEASURES = (
    ("accuracy_mean", "Mean accuracy, %", "higher is better"),
    ("std", "STD of accuracies, points", "0 is fair; lower is fairer"),
    ("ser", "SER, largest error / smallest", "1 is fair; lower is fairer"),
    ("eq_odds", "Equalised odds difference", "0 is fair; lower is fairer"),
    ("dem_par", "Demographic parity difference", "0 is fair; lower is fairer"),
    ("fdr", "Fairness discrepancy rate (FDR)", "1 is fair; higher is fairer"),
    ("ir", "Inequity rate (IR)", "1 is fair; lower is fairer"),
    ("garbe", "GARBE", "0 is fair; lower is fairer"),
    ("nist_fmr_max_geomean", "Largest FMR / geometric mean", "1 is fair; lower is fairer"),
    ("nist_fnmr_max_geomean", "Largest FNMR / geometric mean", "1 is fair; lower is fairer"),
    ("fmr_ratio_smoothed", "Largest FMR / smallest, smoothed", "1 is fair; lower is fairer"),
    ("fnmr_ratio_smoothed", "Largest FNMR / smallest, smoothed", "1 is fair; lower is fairer"),
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; every cell is escaped, the first of each row is its heading."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{inner}</table></div>'


def groups_table(metrics: Metrics) -> str:
    """Show each group under both threshold policies."""
    header = (
        "group", "genuine pairs", "impostor pairs", "accuracy", "95 % interval", "FMR", "FNMR",
        "own threshold", "accuracy at it", "ten-fold accuracy",
    )  # fmt: skip
    return table(
        header,
        [
            (
                name,
                f"{group.genuine:,}",
                f"{group.impostor:,}",
                percent(group.accuracy),
                span(group.accuracy_interval) or "not computed",
                rate(group.fmr),
                rate(group.fnmr),
                plain(group.own.threshold),
                percent(group.own.accuracy),
                "too few pairs"
                if group.accuracy_10fold is None
                else percent(group.accuracy_10fold),
            )
            for name, group in metrics.groups.items()
        ],
    )


def tar_table(metrics: Metrics) -> str:
    """Show TAR at FAR; cells that the number of pairs cannot support are marked."""
    rows = []
    for name, group in metrics.groups.items():
        cells = [
            rate(group.tar_at_far[key].tar)
            + ("" if group.tar_at_far[key].supported else " (too few pairs)")
            for key in FAR_TARGETS
        ]
        rows.append((name, *cells, rate(group.eer), plain(group.auc, 4), plain(group.d_prime, 2)))
    labels = [f"TAR at FAR {100 * float(key):g} %" for key in FAR_TARGETS]
    return table(("group", *labels, "EER", "AUC", "d'"), rows)


def measures_table(metrics: Metrics) -> str:
    """Show every fairness figure under both threshold policies."""
    own = metrics.summary.per_group_thresholds
    return table(
        ("measure", "one threshold", "a threshold a group", "how to read it"),
        [
            (label, plain(getattr(metrics.summary, key)), plain(getattr(own, key)), hint)
            for key, label, hint in _MEASURES
        ],
    )


def comparison_table(models: Sequence[Metrics]) -> str:
    """Show models side by side."""
    names = [model.model.name or model.data.source for model in models]
    rows = [
        (label, *(plain(getattr(model.summary, key)) for model in models))
        for key, label, _ in _MEASURES
    ]
    rows.append(
        (
            "STD with a threshold a group",
            *(plain(model.summary.per_group_thresholds.std) for model in models),
        )
    )
    return table(("measure", *names), rows)


def calibration_table(metrics: Metrics) -> str:
    """Show thresholds for false match rates."""
    return table(
        ("target FMR", "threshold, all pairs", "threshold, worst group", "largest FNMR at it", ""),
        [
            (
                rate(point.fmr),
                plain(point.threshold_pooled),
                plain(point.threshold_worst_group),
                rate(max(point.group_fnmr.values())),
                "" if point.supported else "too few pairs",
            )
            for point in metrics.calibration
        ],
    )
