import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mstkd_serve.errors import DataError
from mstkd_serve.fairness import (
    accuracy_at,
    accuracy_per_group_threshold,
    best_threshold,
)

SCORES = [0.9, 0.6, 0.5, 0.1, 0.8, 0.4, 0.45, 0.3]
GENUINE = [True, True, False, False, True, True, False, False]
GROUPS = ["a"] * 4 + ["b"] * 4


def test_hand_computed_case():
    # At 0.5: a accepts 0.9, 0.6, 0.5 (one wrong), b accepts 0.8 (0.4 is wrongly rejected).
    result = accuracy_at(SCORES, GENUINE, GROUPS, 0.5)
    assert result.accuracy == {"a": 75.0, "b": 75.0}
    assert (result.mean, result.std, result.ser) == (75.0, 0.0, 1.0)
    # At 0.6 a is perfect, so SER is infinite.
    result = accuracy_at(SCORES, GENUINE, GROUPS, 0.6)
    assert result.accuracy == {"a": 100.0, "b": 75.0}
    assert (result.mean, result.std, result.ser) == (87.5, 12.5, float("inf"))


def test_best_global_threshold_by_hand():
    assert best_threshold(SCORES, GENUINE, GROUPS) == 0.6


def test_own_thresholds_by_hand():
    result = accuracy_per_group_threshold(SCORES, GENUINE, GROUPS)
    assert result.threshold == {"a": 0.6, "b": 0.4}
    assert result.accuracy == {"a": 100.0, "b": 75.0}


def test_no_errors_at_all_is_fair():
    result = accuracy_at([1, 0, 1, 0], [True, False] * 2, ["a", "a", "b", "b"], 0.5)
    assert result.ser == 1.0


PAIRS = st.lists(
    st.tuples(st.integers(-20, 20), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=40
).map(lambda rows: [*rows, *((s, g, name) for name in "abc" for s, g in ((3, True), (1, False)))])


@settings(deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_threshold_is_the_best_of_all_and_ignores_order(rows, random):
    scores, genuine, groups = zip(*rows, strict=True)
    found = best_threshold(scores, genuine, groups)
    tried = {t: accuracy_at(scores, genuine, groups, t).mean for t in {*scores}}
    assert tried[found] == pytest.approx(max(tried.values()), abs=1e-9)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert best_threshold(*zip(*shuffled, strict=True)) == found


@settings(deadline=None)
@given(PAIRS)
def test_accuracies_do_not_change_under_a_monotone_change_of_scores(rows):
    scores, genuine, groups = zip(*rows, strict=True)
    changed = np.arctan(np.asarray(scores) / 10.0)
    for values in (scores, changed):
        threshold = best_threshold(values, genuine, groups)
        result = accuracy_at(values, genuine, groups, threshold)
        if values is scores:
            first = result.accuracy
    assert result.accuracy == first


@pytest.mark.parametrize(
    ("scores", "genuine", "groups", "message"),
    [
        ([], [], [], "no pairs"),
        ([0.5], [True, False], ["a"], "one length"),
        ([0.5, float("nan")], [True, False], ["a", "a"], "1 scores are not finite"),
        ([0.5, 0.4], [True, True], ["a", "a"], "'a' has no impostor"),
        ([0.5, 0.4], [False, False], ["a", "a"], "'a' has no genuine"),
    ],
)
def test_unusable_scores_are_refused(scores, genuine, groups, message):
    with pytest.raises(DataError, match=message):
        accuracy_at(scores, genuine, groups, 0.5)


@pytest.mark.shared_data
@pytest.mark.parametrize("model", ["balanced34", "balanced50"])
def test_published_figures_on_rfw(shared: Path, model):
    folder = shared / "data" / "rfw_scores"
    with open(folder / f"{model}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "expected.csv", newline="") as file:
        (expected,) = [row for row in csv.DictReader(file) if row["model"] == model]
    scores = [float(row["score"]) for row in rows]
    genuine = [row["genuine"] == "1" for row in rows]
    groups = [row["group"] for row in rows]
    assert len(rows) == 24_000

    result = accuracy_at(scores, genuine, groups, float(expected["threshold"]))
    for group, accuracy in result.accuracy.items():
        assert accuracy == pytest.approx(float(expected[group]), abs=1e-9)
    assert result.std == pytest.approx(float(expected["STD"]), abs=1e-9)
    assert result.ser == pytest.approx(float(expected["SER"]), abs=1e-9)
    best = accuracy_at(scores, genuine, groups, best_threshold(scores, genuine, groups))
    assert best.mean >= result.mean
