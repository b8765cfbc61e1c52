"""From measured operating points to the calibration that a model carries."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from mstkd_serve.calibration import Calibration, Probability
from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import ContractError, DataError
from mstkd_serve.fairness.schema import Metrics
from mstkd_serve.fairness.scores import Scores
from mstkd_serve.files import atomic_path
from mstkd_serve.graph import read_contract

_MOST_OF_A_KIND = 100_000


def fit_probability(scores: Scores) -> Probability:
    """Fit a logistic map from score to the probability of "same identity".

    Platt, "Probabilistic outputs for support vector machines" (1999), with scikit-learn's
    LogisticRegression, both kinds of pairs weighing the same. Of more than 100,000 pairs of a
    kind, that many quantiles stand for all.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DataError("calibration needs pip install 'mstkd-serve[report]'.") from error
    genuine, impostor = (_thinned(scores.score[scores.genuine == kind]) for kind in (True, False))
    score = np.concatenate([genuine, impostor])[:, np.newaxis]
    model = LogisticRegression(class_weight="balanced", C=1e6, max_iter=1000)
    model.fit(score, np.arange(len(score)) < len(genuine))
    return Probability(slope=float(model.coef_[0, 0]), intercept=float(model.intercept_[0]))


def _thinned(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores, ascending; of too many, evenly spaced ones."""
    ascending = np.sort(score)
    if len(ascending) <= _MOST_OF_A_KIND:
        return ascending
    return ascending[np.linspace(0, len(ascending) - 1, _MOST_OF_A_KIND).round().astype(np.int64)]


def calibrate(
    metrics: Metrics,
    contract_id: str,
    fmr: float,
    policy: Literal["worst_group", "pooled"] = "worst_group",
    *,
    allow_unsupported: bool = False,
) -> Calibration:
    """Choose the threshold for a false match rate.

    Args:
        metrics: A measurement of the model.
        contract_id: Id of the model's contract.
        fmr: The target; one that `metrics` has an operating point for.
        policy: Whether the worst group or all pairs together must keep the target.
        allow_unsupported: Whether too few impostor pairs are accepted.

    Raises:
        ContractError: The measurement is that of a model with another contract.
        DataError: There is no such operating point, or the pairs do not support it.
    """
    measured = metrics.model.contract_id
    if measured is not None and measured != contract_id:
        raise ContractError(
            f"these metrics were measured on a model with contract {measured}, this one has "
            f"{contract_id}. Evaluate this model first."
        )
    points = {point.fmr: point for point in metrics.calibration}
    if fmr not in points:
        known = ", ".join(f"{value:g}" for value in sorted(points, reverse=True))
        raise DataError(
            f"--fmr {fmr:g}: the metrics hold thresholds for {known} only. Evaluate again with "
            f"--fmr {fmr:g}."
        )
    point = points[fmr]
    if not point.supported and not allow_unsupported:
        fewest = min(group.impostor for group in metrics.groups.values())
        raise DataError(
            f"--fmr {fmr:g}: {fewest} impostor pairs a group do not support it, fewer than 10 "
            "false matches would be expected. Evaluate on more pairs, take a higher FMR, or "
            "say --allow-unsupported."
        )
    worst = policy == "worst_group"
    return Calibration(
        threshold=point.threshold_worst_group if worst else point.threshold_pooled,
        fmr=fmr,
        policy=policy,
        group_fmr=point.group_fmr if worst else point.pooled_group_fmr,
        group_fnmr=point.group_fnmr if worst else point.pooled_group_fnmr,
        data=metrics.data.source,
        pairs=metrics.data.pairs,
        contract_id=contract_id,
        probability=metrics.probability,
    )


def contract_of(model: Path) -> FaceContract:
    """Return a model's contract.

    Raises:
        ContractError: It carries none.
    """
    contract = read_contract(model)
    if contract is None:
        raise ContractError(
            f"{model}: carries no contract. Make it with 'mstkd-serve graph' or 'mstkd-train "
            "export' first."
        )
    return contract


def write_calibration(model: Path, calibration: Calibration) -> None:
    """Write a calibration into an ONNX file's metadata, whole or not at all.

    Raises:
        ContractError: The model carries no contract, or another than the calibration's.
    """
    contract_id = contract_of(model).id
    if calibration.contract_id != contract_id:
        raise ContractError(
            f"{model}: its contract is {contract_id}, the calibration belongs to "
            f"{calibration.contract_id}. Calibrate this model itself."
        )
    loaded = onnx.load(model)
    pairs = {pair.key: pair.value for pair in loaded.metadata_props}
    onnx.helper.set_model_props(loaded, pairs | calibration.metadata())
    with atomic_path(model) as temporary:
        onnx.save(loaded, temporary)
