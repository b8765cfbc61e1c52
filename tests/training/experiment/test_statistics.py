import csv
from collections import defaultdict
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from mstkd_training.experiment import (
    ARMS,
    METRICS,
    Arm,
    Figures,
    Result,
    estimate,
    paired_differences,
    print_tables,
    summarise,
)
from mstkd_training.experiment.statistics import t_quantile

Finished = tuple[Path, list[Result]]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _made(figures: dict[tuple[int, Arm], float], ser: float | None = 2.0) -> list[Result]:
    return [
        Result(
            seed,
            arm,
            Figures(
                accuracy=value, std=1.0, ser=ser, own_accuracy=value, own_std=1.0, groups={"A": 1.0}
            ),
        )
        for (seed, arm), value in figures.items()
    ]


def test_t_is_students() -> None:
    for freedom in range(1, 40):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_an_interval_is_students_over_the_seeds_that_have_the_figure() -> None:
    values = [90.0, 91.5, 89.2, 92.2]
    found = estimate([*values, None])
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.count == 4
    assert found.mean == pytest.approx((low + high) / 2)
    assert found.half_width == pytest.approx((high - low) / 2)
    assert estimate([90.0]).half_width is None
    assert estimate([None, None]).mean is None


def test_the_written_tables_are_means_and_intervals_of_the_runs(finished: Finished) -> None:
    runs = _rows(finished[0] / "runs.csv")
    summary = _rows(finished[0] / "summary.csv")
    assert len(runs) == 2 * len(ARMS)
    assert len(summary) == len(ARMS)
    keys = ("teachers", "adaptor", "student")
    for row in summary:
        mine = [run for run in runs if all(run[key] == row[key] for key in keys)]
        assert len(mine) == 2
        for metric in ("accuracy", "std", "own_std"):
            values = [float(run[metric]) for run in mine]
            assert float(row[metric]) == pytest.approx(np.mean(values))
            spread = stats.t.ppf(0.975, 1) * np.std(values, ddof=1) / np.sqrt(2)
            assert float(row[f"{metric}_half_width"]) == pytest.approx(spread)
        for run in mine:
            groups = [float(run["accuracy_Asian"]), float(run["accuracy_African"])]
            assert float(run["accuracy"]) == pytest.approx(np.mean(groups))
            assert float(run["std"]) == pytest.approx(np.std(groups), abs=1e-9)
            wrong = 100 - np.array(groups)
            assert float(run["ser"]) == pytest.approx(wrong.max() / wrong.min())


def test_differences_are_taken_within_each_seed(finished: Finished) -> None:
    runs = _rows(finished[0] / "runs.csv")
    place = {(r["seed"], r["teachers"], r["adaptor"], r["student"]): r for r in runs}
    students = defaultdict(list)
    for row in _rows(finished[0] / "differences.csv"):
        if row["adaptor"] == "mean":
            for metric in ("accuracy", "std"):
                means = [np.mean(students[metric, seed]) for seed in "12"]
                assert float(row[metric]) == pytest.approx(np.mean(means), abs=1e-9)
            continue
        for metric in ("accuracy", "std"):
            found = [
                float(place[seed, "specialised", row["adaptor"], row["student"]][metric])
                - float(place[seed, "generalist", row["adaptor"], row["student"]][metric])
                for seed in "12"
            ]
            assert float(row[metric]) == pytest.approx(np.mean(found), abs=1e-9)
            if row["student"] != "none":
                for seed, value in zip("12", found, strict=True):
                    students[metric, seed].append(value)


def test_a_seeds_common_luck_cancels_in_the_differences() -> None:
    luck = {1: 0.0, 2: 9.0, 3: -7.0}
    results = _made(
        {(s, a): 80.0 + luck[s] + 2.0 * (a.teachers == "specialised") for s in luck for a in ARMS}
    )
    assert summarise(results)[ARMS[0]]["accuracy"].half_width == pytest.approx(19.9, abs=0.2)
    for row in paired_differences(results):
        found = row.differences["accuracy"]
        assert found.mean == pytest.approx(2.0)
        assert found.half_width == pytest.approx(0.0, abs=1e-6)


def test_the_mean_of_all_students_takes_each_seed_for_one_draw() -> None:
    results = _made(
        {(s, a): float(s) * (a.teachers == "specialised") for s in (1, 2, 3) for a in ARMS}
    )
    overall = paired_differences(results)[-1].differences["accuracy"]
    assert overall.count == 3
    assert overall.half_width == pytest.approx(stats.t.ppf(0.975, 2) / np.sqrt(3))


def test_figures_that_no_seed_has_are_shown_as_such() -> None:
    results = _made({(s, a): 99.0 for s in (1, 2) for a in ARMS}, ser=None)
    console = Console(width=100, record=True, file=StringIO())
    print_tables(console, results)
    text = console.export_text()
    assert "SER: defined in too few seeds" in text
    assert "accuracy: no difference told from noise" in text
    assert "99.00 ± 0.00" in text


def test_one_seed_concludes_nothing(finished: Finished) -> None:
    console = Console(width=80, record=True, file=StringIO())
    print_tables(console, [result for result in finished[1] if result.seed == 1])
    text = console.export_text()
    assert "One seed: no interval, and no conclusion" in text
    assert "±" not in text


def test_the_picture_has_a_dot_for_every_mean(finished: Finished) -> None:
    root = ElementTree.parse(finished[0] / "experiment.svg").getroot()
    dots = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 3 * len(ARMS) + 2
    assert {"specialised teachers", "generalist teachers"} <= set(root.itertext())
    assert len(METRICS) == 5
