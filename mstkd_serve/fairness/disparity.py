"""How unequally groups fare: the figures of the fairness literature from rates by group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.fairness.schema import Spread


@dataclass(frozen=True)
class GroupCounts:
    """Decisions of one group at its threshold.

    Attributes:
        genuine: Number of genuine pairs.
        impostor: Number of impostor pairs.
        false_matches: Impostor pairs accepted.
        false_non_matches: Genuine pairs rejected.
    """

    genuine: int
    impostor: int
    false_matches: int
    false_non_matches: int


def spread_of(groups: Sequence[GroupCounts], ddof: Literal[0, 1] = 0) -> Spread:
    """Compute every figure of `Spread`.

    - STD over accuracies, and SER = max error / min error (Wang and Deng, CVPR 2020).
    - EqOdds(Diff): larger of the spreads (max - min) of TMR and FMR. DemPar(Diff): spread of the
      share of pairs accepted. Definitions of Fairlearn (Weerts et al., JMLR 2023).
    - FDR = 1 - (0.5 max|FMR_i - FMR_j| + 0.5 max|FNMR_i - FNMR_j|) (de Freitas Pereira and
      Marcel, IEEE TBIOM 2022), over the right denominators: impostor pairs for FMR, genuine for
      FNMR. Some published figures divide both by all pairs.
    - IR = sqrt(max FMR / min FMR) * sqrt(max FNMR / min FNMR) (NIST IR 8429, both exponents 0.5).
    - GARBE = 0.5 Gini(FMR) + 0.5 Gini(FNMR), with
      Gini(x) = n/(n-1) * sum_ij |x_i - x_j| / (2 n^2 mean(x)) (Howard et al., ICPRW 2022).
    - NIST: max FMR / geometric mean of FMR, likewise FNMR (NIST IR 8429).

    Ratios with a zero in them say nothing: they are None, and beside them stand ratios of
    smoothed rates (count + 0.5) / (pairs + 1) (Jeffreys' prior, the posterior mean), which shrink
    towards 1 where there are few pairs. Accuracy, SER and DemPar depend on the share of genuine
    pairs: they compare groups only where that share is the same in all.

    Args:
        groups: At least one group.
        ddof: Of STD: 0, as most papers have it, or 1 (then 0 for a single group).
    """
    fmr = np.array([group.false_matches / group.impostor for group in groups])
    fnmr = np.array([group.false_non_matches / group.genuine for group in groups])
    wrong = np.array([group.false_matches + group.false_non_matches for group in groups])
    pairs = np.array([group.genuine + group.impostor for group in groups])
    accepted = np.array([g.genuine - g.false_non_matches + g.false_matches for g in groups]) / pairs
    accuracy = 100 * (1 - wrong / pairs)
    fmr_ratio, fnmr_ratio = _max_over_min(fmr), _max_over_min(fnmr)
    gini_fmr, gini_fnmr = _gini(fmr), _gini(fnmr)
    return Spread(
        accuracy_mean=float(accuracy.mean()),
        std=float(accuracy.std(ddof=ddof)) if len(groups) > ddof else 0.0,
        ser=_max_over_min(wrong / pairs),
        eq_odds=float(max(np.ptp(1 - fnmr), np.ptp(fmr))),
        dem_par=float(np.ptp(accepted)),
        fdr=float(1 - (0.5 * np.ptp(fmr) + 0.5 * np.ptp(fnmr))),
        ir=None
        if fmr_ratio is None or fnmr_ratio is None
        else float(np.sqrt(fmr_ratio) * np.sqrt(fnmr_ratio)),
        garbe=None if gini_fmr is None or gini_fnmr is None else 0.5 * gini_fmr + 0.5 * gini_fnmr,
        nist_fmr_max_geomean=_max_over_geomean(fmr),
        nist_fnmr_max_geomean=_max_over_geomean(fnmr),
        fmr_ratio_smoothed=_smoothed_ratio(
            [(group.false_matches, group.impostor) for group in groups]
        ),
        fnmr_ratio_smoothed=_smoothed_ratio(
            [(group.false_non_matches, group.genuine) for group in groups]
        ),
    )


def _max_over_min(rates: NDArray[np.float64]) -> float | None:
    """Return the ratio; None where a rate is 0, all of them included: 0/0 measures nothing."""
    return float(rates.max() / rates.min()) if rates.min() > 0 else None


def _max_over_geomean(rates: NDArray[np.float64]) -> float | None:
    return float(rates.max() / np.exp(np.log(rates).mean())) if rates.min() > 0 else None


def _gini(rates: NDArray[np.float64]) -> float | None:
    """Return Gini's coefficient with the small-sample factor; 0 where all rates are 0."""
    count = len(rates)
    if count < 2:
        return None
    if rates.max() == 0:
        return 0.0
    differences = np.abs(rates[:, np.newaxis] - rates).sum()
    return float(count / (count - 1) * differences / (2 * count**2 * rates.mean()))


def _smoothed_ratio(counts: list[tuple[int, int]]) -> float:
    smoothed = [(errors + 0.5) / (pairs + 1) for errors, pairs in counts]
    return max(smoothed) / min(smoothed)
