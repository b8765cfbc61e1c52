import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.rates import (
    GroupScores,
    area_under_curve,
    d_prime,
    det_curve,
    equal_error_rate,
    histogram,
    tar_at_far,
    threshold_at_fmr,
)
from mstkd_serve.fairness.thresholds import best_threshold, ten_fold_accuracy

HAND = GroupScores(np.array([0.4, 0.6, 0.7, 0.9]), np.array([0.1, 0.2, 0.3, 0.5, 0.6]))


def test_rates_by_hand():
    # At 0.6: impostor 0.6 is accepted (1 of 5), genuine 0.4 is rejected (1 of 4).
    point = HAND.at(0.6)
    assert (point.fmr, point.fnmr) == (0.2, 0.25)
    assert point.accuracy == pytest.approx(100 * 7 / 9)


def test_threshold_at_fmr_is_the_lowest_that_keeps_it():
    assert threshold_at_fmr(HAND.impostor, 1.0) == 0.1
    for target, accepted in ((0.0, 0), (0.19, 0), (0.2, 1), (0.4, 2), (0.99, 4)):
        threshold = threshold_at_fmr(HAND.impostor, target)
        assert HAND.false_matches(threshold) == accepted
        assert HAND.fmr(np.nextafter(threshold, -1)) > target


def test_ties_are_rejected_together():
    impostor = np.array([0.1, 0.5, 0.5, 0.5])
    assert threshold_at_fmr(impostor, 0.5) > 0.5


def test_tar_at_far_says_whether_the_pairs_support_it():
    found = tar_at_far(HAND, 0.2)
    assert (found.tar, found.far, found.supported) == (0.75, 0.2, False)
    many = GroupScores(np.ones(5), np.linspace(0, 0.5, 1000))
    assert tar_at_far(many, 1e-2).supported
    assert not tar_at_far(many, 1e-3).supported


def test_area_eer_and_d_prime_by_hand():
    # Of 20 couples, 0.4 outscores 3, 0.6 outscores 4 and ties one, 0.7 and 0.9 outscore 5.
    assert area_under_curve(HAND) == (3 + 4.5 + 5 + 5) / 20
    assert equal_error_rate(HAND) == pytest.approx((0.2 + 0.25) / 2)
    expected = (HAND.genuine.mean() - HAND.impostor.mean()) / np.sqrt(
        (HAND.genuine.var() + HAND.impostor.var()) / 2
    )
    assert d_prime(HAND) == pytest.approx(expected)


def test_equal_scores_are_no_crash_and_no_claim():
    flat = GroupScores(np.full(3, 0.5), np.full(4, 0.5))
    assert area_under_curve(flat) == 0.5
    assert equal_error_rate(flat) == 0.5
    assert d_prime(flat) is None
    assert sum(histogram(flat, 0.5, 0.5).genuine) == 3


def test_a_group_of_one_kind_is_refused():
    with pytest.raises(DataError, match="genuine and impostor"):
        GroupScores.of(np.array([0.1, 0.2]), np.array([True, True]))


SCORES = st.lists(st.integers(-50, 50), min_size=1, max_size=60)


@settings(deadline=None)
@given(SCORES, SCORES)
def test_area_and_eer_survive_monotone_changes_and_det_is_monotone(genuine, impostor):
    plain = GroupScores(np.sort(np.array(genuine, float)), np.sort(np.array(impostor, float)))
    bent = GroupScores(np.arctan(plain.genuine / 20), np.arctan(plain.impostor / 20))
    assert area_under_curve(plain) == area_under_curve(bent)
    assert equal_error_rate(plain) == equal_error_rate(bent)
    curve = det_curve(plain)
    assert len(curve.threshold) <= 200
    assert (np.diff(curve.fmr) <= 0).all()
    assert (np.diff(curve.fnmr) >= 0).all()


@settings(deadline=None)
@given(SCORES, SCORES)
def test_figures_equal_those_of_every_threshold_tried(genuine, impostor):
    for dtype in (np.float32, np.float64):
        kinds = (np.sort(np.array(kind, dtype) / 7) for kind in (genuine, impostor))
        found = GroupScores(*kinds)
        tried = np.unique(np.concatenate([found.genuine, found.impostor]).astype(np.float64))
        fmr = np.array([(found.impostor >= t).mean() for t in tried])
        fnmr = np.array([(found.genuine < t).mean() for t in tried])
        gap = np.abs(fmr - fnmr)
        nearest = np.flatnonzero(gap <= gap.min() + 1e-12)
        assert np.abs(equal_error_rate(found) - (fmr + fnmr)[nearest] / 2).min() < 1e-12
        for threshold in (*tried, *np.nextafter(tried, 9), *np.nextafter(tried, -9)):
            assert found.fmr(threshold) == pytest.approx((found.impostor >= threshold).mean())
        best = best_threshold([found])
        wrong = [(f * len(impostor) + n * len(genuine)) for f, n in zip(fmr, fnmr, strict=True)]
        count = found.false_matches(best) + found.false_non_matches(best)
        assert count == round(min(*wrong, len(genuine)))


def test_area_equals_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    genuine = rng.random(2000) < 0.3
    score = rng.normal(genuine, 1).round(1)
    expected = roc_auc_score(genuine, score)
    assert area_under_curve(GroupScores.of(score, genuine)) == pytest.approx(expected, abs=1e-12)


def test_ten_folds_choose_the_threshold_on_the_others():
    rng = np.random.default_rng(0)
    genuine = np.arange(200) < 100
    score = np.where(genuine, 0.6, 0.4) + rng.normal(0, 0.1, 200)
    fold = np.tile(np.arange(10), 20)
    expected = []
    for number in range(10):
        held = fold == number
        tried = np.unique(score[~held])
        right = [((score[~held] >= t) == genuine[~held]).mean() for t in tried]
        best = tried[int(np.argmax(right))]
        expected.append(((score[held] >= best) == genuine[held]).mean())
    assert ten_fold_accuracy(score, genuine, fold) == pytest.approx(100 * np.mean(expected))


def test_contiguous_folds_hold_both_kinds_whatever_the_layout():
    score, genuine = np.linspace(0, 1, 100), np.arange(100) >= 50
    # Only the fold of the lowest genuine pairs misses them: the others start at a higher score.
    assert ten_fold_accuracy(score, genuine, None) == 95
    assert ten_fold_accuracy(score[:20], genuine[:20], None) is None
