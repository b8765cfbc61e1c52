"""The experiment's tables: on the console, and as CSV files."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mstkd_serve.files import atomic_path
from mstkd_training.experiment.chart import draw
from mstkd_training.experiment.figures import METRICS, Result
from mstkd_training.experiment.statistics import (
    Estimate,
    paired_differences,
    summarise,
)

RUNS_FILE: Final = "runs.csv"
SUMMARY_FILE: Final = "summary.csv"
DIFFERENCES_FILE: Final = "differences.csv"
PICTURE_FILE: Final = "experiment.svg"

_PRINTED: Final = {"accuracy": "accuracy", "std": "STD", "ser": "SER", "own_std": "own STD"}
"""The figures on the console, eighty columns wide; the files have all."""


def write_results(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Write every figure, the means, the differences, and a picture of the means.

    Returns:
        The files: `runs.csv` with a row a seed and arm, `summary.csv` with a row an arm,
        `differences.csv` with a row a way to use teachers, `experiment.svg`.
    """
    groups = list(results[0].figures.groups)
    runs = [
        [
            result.seed,
            result.arm.teachers,
            *result.arm.method,
            *(getattr(result.figures, metric) for metric in METRICS),
            *(result.figures.groups[group] for group in groups),
        ]
        for result in results
    ]
    summary = summarise(results)
    _write(
        folder / RUNS_FILE,
        ["seed", "teachers", "adaptor", "student", *METRICS, *(f"accuracy_{g}" for g in groups)],
        runs,
    )
    spread = [column for m in METRICS for column in (m, f"{m}_half_width", f"{m}_seeds")]
    _write(
        folder / SUMMARY_FILE,
        ["teachers", "adaptor", "student", *spread],
        [[arm.teachers, *arm.method, *_columns(row)] for arm, row in summary.items()],
    )
    _write(
        folder / DIFFERENCES_FILE,
        ["adaptor", "student", *spread],
        [
            [row.adaptor, row.student, *_columns(row.differences)]
            for row in paired_differences(results)
        ],
    )
    with atomic_path(folder / PICTURE_FILE) as temporary:
        temporary.write_text(draw(summary), encoding="utf-8")
    names = (RUNS_FILE, SUMMARY_FILE, DIFFERENCES_FILE, PICTURE_FILE)
    return [folder / name for name in names]


def print_tables(console: Console, results: Sequence[Result]) -> None:
    """Print means and differences over seeds, and what can be concluded from them."""
    seeds = len({result.seed for result in results})
    table = _table("Means over seeds", "teachers")
    last = None
    for arm, row in summarise(results).items():
        if last not in (None, arm.adaptor):
            table.add_section()
        last = arm.adaptor
        table.add_row(arm.adaptor, arm.student, arm.teachers, *(_shown(row[m]) for m in _PRINTED))
    console.print(table)
    table = _table("Specialised minus generalist, within each seed")
    rows = paired_differences(results)
    for compared in rows:
        if compared.adaptor == "mean":
            table.add_section()
        shown = (_shown(compared.differences[metric], "+") for metric in _PRINTED)
        table.add_row(compared.adaptor, compared.student, *shown)
    console.print(table)
    for sentence in conclusion(rows[-1].differences, seeds):
        console.print(sentence, highlight=False)


def conclusion(overall: Mapping[str, Estimate], seeds: int) -> list[str]:
    """Say what the figures are, what the differences over all students show, and what not.

    Args:
        overall: Differences over all students, by metric.
        seeds: How many seeds there are.
    """
    said = [
        "STD and SER: of the groups' accuracies and errors at one threshold; own STD: each group "
        "at its own. Student none: adaptor and teachers themselves. Mean of all: over the six "
        "kinds of students within a seed first.",
    ]
    if seeds < 2:
        return [*said, "One seed: no interval, and no conclusion. Say --seeds 3 or more."]
    found = []
    for metric, name in _PRINTED.items():
        difference = overall[metric]
        if difference.half_width is None or difference.mean is None:
            found.append(f"{name}: defined in too few seeds (a group without errors has no SER)")
        elif difference.apart_from_zero:
            more = "higher" if difference.mean > 0 else "lower"
            found.append(f"{name}: {more}, {_shown(difference, '+')}")
        else:
            found.append(f"{name}: no difference told from noise, {_shown(difference, '+')}")
    return [
        *said,
        f"±: half width of the mean's 95 % interval, Student's t over {seeds} seeds. A seed "
        "changes the faces to train and to test on, the networks' start, the order of samples.",
        f"Specialised instead of generalist teachers, all students: {'; '.join(found)}.",
        "With so few seeds an effect smaller than the half width cannot be seen, and of many rows "
        "about one in twenty leaves 0 out by chance.",
    ]


def _table(title: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("adaptor", "student", *more):
        table.add_column(name, no_wrap=True)
    for name in _PRINTED.values():
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _shown(value: Estimate, sign: str = "") -> str:
    if value.mean is None:
        return "-"
    if value.half_width is None:
        return f"{value.mean:{sign}.2f}"
    return f"{value.mean:{sign}.2f} ± {value.half_width:.2f}"


def _columns(row: dict[str, Estimate]) -> list[float | int | None]:
    return [
        value
        for metric in METRICS
        for value in (row[metric].mean, row[metric].half_width, row[metric].count)
    ]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
