import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mstkd_serve.fairness import evaluate, make_scores
from mstkd_serve.fairness.operating_points import calibration_points
from mstkd_serve.fairness.rates import GroupScores, threshold_at_fmr

PAIRS = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(-20, 20)), min_size=1, max_size=40
).map(lambda rows: [*rows, *((name, g, s) for name in "abc" for g, s in ((True, 3), (False, 1)))])


def test_best_global_threshold_by_hand():
    scores = make_scores(
        "aaaabbbb",
        [1, 1, 0, 0, 1, 1, 0, 0],
        [0.9, 0.6, 0.5, 0.1, 0.8, 0.4, 0.45, 0.3],
    )
    metrics = evaluate(scores)
    assert metrics.summary.threshold == 0.6
    assert {name: group.accuracy for name, group in metrics.groups.items()} == {"a": 100, "b": 75}
    assert (metrics.summary.accuracy_mean, metrics.summary.std) == (87.5, 12.5)
    assert {name: group.own.threshold for name, group in metrics.groups.items()} == {
        "a": 0.6,
        "b": 0.4,
    }


@settings(deadline=None, max_examples=40)
@given(PAIRS, st.randoms(use_true_random=False))
def test_threshold_is_the_best_of_all_and_ignores_order(rows, random):
    found = evaluate(make_scores(*zip(*rows, strict=True))).summary
    for threshold in {score for _, _, score in rows}:
        tried = evaluate(make_scores(*zip(*rows, strict=True)), threshold=threshold).summary
        assert tried.accuracy_mean <= found.accuracy_mean + 1e-9
    shuffled = list(rows)
    random.shuffle(shuffled)
    again = evaluate(make_scores(*zip(*shuffled, strict=True))).summary
    assert again.threshold == found.threshold


@settings(deadline=None, max_examples=40)
@given(PAIRS)
def test_accuracies_do_not_change_under_a_monotone_change_of_scores(rows):
    group, genuine, score = zip(*rows, strict=True)
    plain = evaluate(make_scores(group, genuine, score))
    bent = evaluate(make_scores(group, genuine, np.arctan(np.asarray(score) / 10)))
    for name in plain.groups:
        assert bent.groups[name].accuracy == plain.groups[name].accuracy
        assert bent.groups[name].own.accuracy == plain.groups[name].own.accuracy
        assert bent.groups[name].eer == pytest.approx(plain.groups[name].eer)
    assert bent.summary.ser == plain.summary.ser


def test_pooled_and_worst_group_thresholds_equal_those_of_all_scores():
    rng = np.random.default_rng(0)
    sizes = {"a": 3000, "b": 700, "c": 40}
    groups = {
        name: GroupScores(np.ones(2), np.sort(rng.normal(0.1 * (name == "c"), 0.2, size).round(3)))
        for name, size in sizes.items()
    }
    everyone = np.sort(np.concatenate([group.impostor for group in groups.values()]))
    points = calibration_points(groups, [0.5, 0.999])
    assert [point.fmr for point in points[:3]] == [0.999, 0.5, 0.1]
    for point in points:
        assert point.threshold_pooled == threshold_at_fmr(everyone, point.fmr)
        assert (everyone >= point.threshold_pooled).mean() <= point.fmr
        assert max(point.group_fmr.values()) <= point.fmr
        lower = np.nextafter(point.threshold_worst_group, -1)
        assert max(group.fmr(lower) for group in groups.values()) > point.fmr
