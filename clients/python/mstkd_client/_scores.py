"""Scores of pairs of faces whose embeddings arrive request by request."""

import numpy as np
from numpy.typing import NDArray

from mstkd_client._answers import check_same_version
from mstkd_client._similarity import cosine
from mstkd_client._timing import Timing
from mstkd_client._types import ModelInfo
from mstkd_client._verification import Verifications
from mstkd_client._wire import Answer


class PairScores:
    """Rows 0 and 1 are the first pair, rows 2 and 3 the second, wherever requests end.

    Args:
        model_name: The model that embeds, for error messages.

    Attributes:
        version: The version that answered; "" before the first answer.
    """

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._scores: list[NDArray[np.float32]] = []
        self._left: NDArray[np.float32] | None = None
        self.version = ""

    def take(self, answer: Answer) -> None:
        """Score the pairs that are complete.

        Raises:
            ContractMismatch: Another version of the model answered than before.
        """
        self.version = check_same_version([answer], self._model_name, self.version)
        rows = answer.vectors
        if self._left is not None:
            rows = np.concatenate([self._left, rows])
        whole = len(rows) // 2 * 2
        self._left = rows[whole:].copy() if whole < len(rows) else None
        self._scores.append(cosine(rows[:whole:2], rows[1:whole:2]))

    def verifications(self, info: ModelInfo, timing: Timing) -> Verifications:
        """Return all scores with the model's decision."""
        return Verifications(
            np.concatenate(self._scores),
            info.contract_id,
            info.model_name,
            self.version,
            info.calibration,
            timing,
        )
