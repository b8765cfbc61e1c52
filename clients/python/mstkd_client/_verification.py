"""Two embeddings, a score, and the decision of a calibrated model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mstkd_client._timing import Timing
from mstkd_client._types import Calibration


@dataclass(frozen=True, slots=True)
class Verification:
    """How alike two faces are.

    The score is not a decision: the threshold belongs to the model and to the error rate that
    you accept. A calibrated model brings both; one that is not answers None for everything but
    the score.

    Attributes:
        score: Cosine similarity of the two embeddings, -1 to 1; higher is more alike.
        contract_id: Id of the face contract of both embeddings.
        model_name: Name of the model that made them.
        model_version: Version of the model that made them, as the server answered.
        accepted: Whether the score reaches the calibrated threshold.
        threshold: The calibrated threshold.
        fmr: The false match rate that the threshold was chosen for.
        worst_group_fmr: The highest false match rate of a group at the threshold.
        probability: Calibrated probability of one identity, at a prior of one half.
        calibrated_on: The data that threshold and rates were measured on.
        timing: Where the time of the call went.
    """

    score: float
    contract_id: str
    model_name: str
    model_version: str
    accepted: bool | None = None
    threshold: float | None = None
    fmr: float | None = None
    worst_group_fmr: float | None = None
    probability: float | None = None
    calibrated_on: str | None = None
    timing: Timing | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False, slots=True)
class Verifications:
    """How alike N pairs of faces are; element i is a `Verification`.

    Attributes:
        scores: float32 `(N,)`, cosine similarity, -1 to 1.
        contract_id: Id of the face contract of all embeddings.
        model_name: Name of the model that made them.
        model_version: Version of the model that made them, as the server answered.
        calibration: The model's calibrated decision, or None where it carries none.
        timing: Where the time of the call went.
    """

    scores: NDArray[np.float32] = field(repr=False)
    contract_id: str
    model_name: str
    model_version: str
    calibration: Calibration | None = None
    timing: Timing | None = None

    @property
    def accepted(self) -> NDArray[np.bool_] | None:
        """Whether each score reaches the threshold, bool `(N,)`; None without calibration."""
        if self.calibration is None:
            return None
        # In float64, as a single verification decides: numpy would round the threshold.
        accepted: NDArray[np.bool_] = self.scores.astype(np.float64) >= self.calibration.threshold
        return accepted

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Verification]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Verification:
        score = float(self.scores[index])
        identity = (self.contract_id, self.model_name, self.model_version)
        calibration = self.calibration
        if calibration is None:
            return Verification(score, *identity, timing=self.timing)
        probability = None
        if calibration.probability is not None:
            slope, intercept = calibration.probability
            probability = 0.5 * (1 + math.tanh((slope * score + intercept) / 2))  # logistic
        return Verification(
            score,
            *identity,
            accepted=score >= calibration.threshold,
            threshold=calibration.threshold,
            fmr=calibration.fmr,
            worst_group_fmr=max(calibration.group_fmr.values()),
            probability=probability,
            calibrated_on=calibration.data,
            timing=self.timing,
        )
