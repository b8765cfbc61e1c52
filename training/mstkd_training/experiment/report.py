"""The experiment's tables: on the console, and as CSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

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

_HEADS: Final = ("accuracy %", "STD", "SER", "own thr. acc. %", "own thr. STD")


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
        table.add_row(arm.adaptor, arm.student, arm.teachers, *(_shown(row[m]) for m in METRICS))
    console.print(table)
    table = _table("Specialised minus generalist, within each seed")
    rows = paired_differences(results)
    for compared in rows:
        if compared.adaptor == "all":
            table.add_section()
        shown = (_shown(compared.differences[metric], sign="+") for metric in METRICS)
        table.add_row(compared.adaptor, compared.student, *shown)
    console.print(table)
    console.print(conclusion(rows[-1].differences, seeds), highlight=False, soft_wrap=True)


def conclusion(overall: dict[str, Estimate], seeds: int) -> str:
    """Say what the differences over all students show, and what so few seeds cannot show."""
    if seeds < 2:
        return "One seed: no interval can be stated, and nothing be concluded. Say --seeds 3."
    found = []
    for metric, name in (("accuracy", "accuracy"), ("std", "STD"), ("ser", "SER")):
        difference = overall[metric]
        if difference.mean is None or difference.half_width is None:
            found.append(f"{name} is not defined in enough seeds")
        elif difference.apart_from_zero:
            more = "higher" if difference.mean > 0 else "lower"
            found.append(f"{name} is {more} ({_shown(difference, sign='+')})")
        else:
            found.append(
                f"{name} shows no difference that could be told from noise "
                f"({_shown(difference, sign='+')})"
            )
    return (
        "-: no such figure, for a group without an error has no SER. +- is the half width of the "
        f"95 % interval of the mean, by Student's t over {seeds} seeds; seeds change the faces to "
        "train and to test on, the networks' start and the order of samples. Student `none`: "
        "teachers and adaptor themselves.\n"
        f"With specialised instead of generalist teachers, over all students: {'; '.join(found)}. "
        f"Rows of one method are {len(overall)} figures of many: some of them leave 0 out by "
        "chance. Differences smaller than the half widths cannot be seen with so few seeds."
    )


def _table(title: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("adaptor", "student", *more):
        table.add_column(name)
    for name in _HEADS:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _shown(value: Estimate, sign: str = "") -> str:
    if value.mean is None:
        return "-"
    if value.half_width is None:
        return f"{value.mean:{sign}.2f}"
    return f"{value.mean:{sign}.2f} +- {value.half_width:.2f}"


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
