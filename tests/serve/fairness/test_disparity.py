import math

import pytest

from mstkd_serve.fairness.disparity import GroupCounts, spread_of


def test_every_figure_by_hand():
    # FMR 0.1 and 0.4, FNMR 0.2 and 0.1, accuracies 85 % and 75 %.
    spread = spread_of([GroupCounts(100, 100, 10, 20), GroupCounts(100, 100, 40, 10)])
    assert spread.accuracy_mean == pytest.approx(80)
    assert spread.std == pytest.approx(5)
    assert spread.ser == pytest.approx(25 / 15)
    assert spread.eq_odds == pytest.approx(0.3)
    assert spread.dem_par == pytest.approx(0.65 - 0.45)
    assert spread.fdr == pytest.approx(1 - 0.5 * 0.3 - 0.5 * 0.1)
    assert spread.ir == pytest.approx(math.sqrt(4) * math.sqrt(2))
    # Gini of (a, b) with n = 2: 2 * 2|a - b| / (8 * mean) = |a - b| / (a + b).
    assert spread.garbe == pytest.approx(0.5 * 0.3 / 0.5 + 0.5 * 0.1 / 0.3)
    assert spread.nist_fmr_max_geomean == pytest.approx(0.4 / 0.2)
    assert spread.nist_fnmr_max_geomean == pytest.approx(0.2 / math.sqrt(0.02))
    assert spread.fmr_ratio_smoothed == pytest.approx(40.5 / 10.5)
    assert spread_of([GroupCounts(100, 100, 10, 20), GroupCounts(100, 100, 40, 10)], 1).std == (
        pytest.approx(5 * math.sqrt(2))
    )


def test_zero_in_a_ratio_is_undefined_and_smoothed():
    spread = spread_of([GroupCounts(100, 100, 0, 5), GroupCounts(100, 100, 10, 5)])
    assert spread.ir is None
    assert spread.nist_fmr_max_geomean is None
    assert spread.fmr_ratio_smoothed == pytest.approx(10.5 / 0.5)
    assert spread_of([GroupCounts(9, 9, 0, 0), GroupCounts(9, 9, 1, 0)]).ser is None


def test_no_errors_anywhere_measure_no_ratio():
    spread = spread_of([GroupCounts(10, 10, 0, 0)] * 3)
    assert (spread.garbe, spread.fdr, spread.std, spread.fmr_ratio_smoothed) == (0, 1, 0, 1)
    undefined = (spread.ser, spread.ir, spread.nist_fmr_max_geomean, spread.nist_fnmr_max_geomean)
    assert undefined == (None,) * 4


def test_one_group_has_no_gini():
    spread = spread_of([GroupCounts(10, 10, 1, 1)], 1)
    assert spread.garbe is None
    assert spread.std == 0
