"""Error rates of one group from its sorted scores.

A pair is accepted when `score >= threshold`. FMR (also FAR) is the share of impostor pairs
accepted, FNMR the share of genuine pairs rejected, TAR = 1 - FNMR (ISO/IEC 19795-1).
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.schema import DetCurve, Histogram, OperatingPoint, TarAtFar

FEWEST_EXPECTED_ERRORS: Final = 10
"""A rate is supported by n pairs where n times the rate is at least this.

With 10 expected errors the 95 % interval of the rate spans about a factor of 2 either way;
Doddington's "rule of 30" (Speech Communication, 2000) asks for 30 at +-30 %.
"""

_DET_POINTS = 90
_BINS = 40


@dataclass(frozen=True, eq=False)
class GroupScores:
    """One group's scores.

    Attributes:
        genuine: Ascending scores of genuine pairs, at least one.
        impostor: Ascending scores of impostor pairs, at least one.
    """

    genuine: NDArray[np.floating]
    impostor: NDArray[np.floating]

    @classmethod
    def of(cls, score: NDArray[np.floating], genuine: NDArray[np.bool_]) -> Self:
        """Sort a group's pairs.

        Raises:
            DataError: There is no genuine or no impostor pair.
        """
        if genuine.all() or not genuine.any():
            raise DataError("a group needs genuine and impostor pairs.")
        return cls(np.sort(score[genuine]), np.sort(score[~genuine]))

    def false_matches(self, threshold: float) -> int:
        """Count the impostor pairs that are accepted."""
        return len(self.impostor) - int(below(self.impostor, threshold))

    def false_non_matches(self, threshold: float) -> int:
        """Count the genuine pairs that are rejected."""
        return int(below(self.genuine, threshold))

    def fmr(self, threshold: float) -> float:
        """Return the share of impostor pairs that are accepted."""
        return self.false_matches(threshold) / len(self.impostor)

    def fnmr(self, threshold: float) -> float:
        """Return the share of genuine pairs that are rejected."""
        return self.false_non_matches(threshold) / len(self.genuine)

    def accuracy(self, threshold: float) -> float:
        """Return the percentage of pairs decided rightly."""
        wrong = self.false_matches(threshold) + self.false_non_matches(threshold)
        return 100.0 * (1 - wrong / (len(self.genuine) + len(self.impostor)))

    def at(self, threshold: float) -> OperatingPoint:
        """Return the rates at a threshold."""
        return OperatingPoint(
            threshold=threshold,
            accuracy=self.accuracy(threshold),
            fmr=self.fmr(threshold),
            fnmr=self.fnmr(threshold),
        )

    def supports(self, rate: float) -> bool:
        """Tell whether there are enough impostor pairs to speak of an FMR."""
        return rate * len(self.impostor) >= FEWEST_EXPECTED_ERRORS * (1 - 1e-9)


def below(
    ascending: NDArray[np.floating], threshold: float | NDArray[np.floating]
) -> NDArray[np.intp]:
    """Count the scores below thresholds.

    A float32 threshold is found for float32 scores, so that millions need not be copied.

    Args:
        ascending: `(P,)`.
        threshold: One, or `(T,)`.
    """
    wanted = np.asarray(threshold, np.float64)
    if ascending.dtype != np.float32:
        return np.asarray(np.searchsorted(ascending, wanted, "left"))
    near = wanted.astype(np.float32)
    near = np.where(near < wanted, np.nextafter(near, np.float32(np.inf)), near)
    return np.asarray(np.searchsorted(ascending, near, "left"))


def threshold_at_fmr(
    impostor: NDArray[np.floating], target: float, total: int | None = None
) -> float:
    """Return the lowest threshold with an FMR of at most `target`.

    It lies just above the highest impostor score that must be rejected, so ties are rejected
    together and the FMR never exceeds the target.

    Args:
        impostor: Ascending scores, at least one.
        target: 0 to 1.
        total: Number of impostor pairs where `impostor` holds only the highest scores.
    """
    allowed = int(np.floor(target * (total or len(impostor)) * (1 + 1e-12)))
    if allowed >= len(impostor):
        return float(impostor[0])
    return float(np.nextafter(np.float64(impostor[-allowed - 1]), np.inf))


def tar_at_far(scores: GroupScores, target: float) -> TarAtFar:
    """Return the true accept rate at the lowest threshold with a FAR of at most `target`."""
    threshold = threshold_at_fmr(scores.impostor, target)
    return TarAtFar(
        tar=1 - scores.fnmr(threshold),
        threshold=threshold,
        far=scores.fmr(threshold),
        supported=scores.supports(target),
    )


def equal_error_rate(scores: GroupScores) -> float:
    """Return the mean of FMR and FNMR where they are closest, over all thresholds.

    FNMR - FMR rises with the threshold, so only the scores around the two genuine ones between
    which it changes sign are looked at.
    """
    genuine = np.unique(scores.genuine)
    balance = _rates(scores, genuine)
    last = int(np.flatnonzero(balance[1] <= balance[0])[-1])
    top = float(genuine[last + 1]) if last + 1 < len(genuine) else np.inf
    between = scores.impostor[
        int(below(scores.impostor, float(genuine[last]))) : int(below(scores.impostor, top))
    ]
    tried = np.unique(np.concatenate([genuine[last : last + 2], between]))
    fmr, fnmr = _rates(scores, tried)
    nearest = np.argmin(np.abs(fmr - fnmr))
    return float((fmr[nearest] + fnmr[nearest]) / 2)


def _rates(
    scores: GroupScores, thresholds: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return FMR and FNMR at each threshold."""
    fmr = (len(scores.impostor) - below(scores.impostor, thresholds)) / len(scores.impostor)
    return fmr, below(scores.genuine, thresholds) / len(scores.genuine)


def area_under_curve(scores: GroupScores) -> float:
    """Return the probability that a genuine pair outscores an impostor pair, ties counting half.

    This is the area under the ROC curve (Hanley and McNeil, Radiology 1982).
    """
    lower = np.searchsorted(scores.impostor, scores.genuine, "left")
    up_to = np.searchsorted(scores.impostor, scores.genuine, "right")
    return float((lower + up_to).mean() / 2 / len(scores.impostor))


def d_prime(scores: GroupScores) -> float | None:
    """Return `(mean_g - mean_i) / sqrt((var_g + var_i) / 2)`; None where neither varies.

    Daugman, "Biometric decision landscapes" (2000). It describes normal distributions only.
    """
    if np.ptp(scores.genuine) == 0 and np.ptp(scores.impostor) == 0:
        return None
    variance = (
        np.var(scores.genuine, dtype=np.float64) + np.var(scores.impostor, dtype=np.float64)
    ) / 2
    distance = scores.genuine.mean(dtype=np.float64) - scores.impostor.mean(dtype=np.float64)
    return float(distance / np.sqrt(variance))


def det_curve(scores: GroupScores) -> DetCurve:
    """Return the detection error trade-off at thresholds spaced by both error rates' logarithms."""
    shares = np.logspace(-6, 0, _DET_POINTS)
    from_impostors = scores.impostor[
        ((1 - shares) * (len(scores.impostor) - 1)).round().astype(np.int64)
    ]
    from_genuine = scores.genuine[(shares * (len(scores.genuine) - 1)).round().astype(np.int64)]
    thresholds = np.unique(np.concatenate([from_impostors, from_genuine]).astype(np.float64))
    fmr, fnmr = _rates(scores, thresholds)
    return DetCurve(
        threshold=tuple(thresholds.tolist()),
        fmr=tuple(fmr.tolist()),
        fnmr=tuple(fnmr.tolist()),
    )


def histogram(scores: GroupScores, low: float, high: float) -> Histogram:
    """Count scores in 40 bins from `low` to `high`."""
    if high <= low:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    return Histogram(
        edges=tuple(edges.tolist()),
        genuine=tuple(np.histogram(scores.genuine, edges)[0].tolist()),
        impostor=tuple(np.histogram(scores.impostor, edges)[0].tolist()),
    )
