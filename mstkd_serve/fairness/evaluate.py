"""From scores to everything that `metrics.json` holds."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.cautions import cautions_about
from mstkd_serve.fairness.disparity import GroupCounts, spread_of
from mstkd_serve.fairness.intervals import (
    Decisions,
    Resampled,
    interval,
    resample,
    summary_intervals,
)
from mstkd_serve.fairness.operating_points import calibration_points
from mstkd_serve.fairness.rates import (
    GroupScores,
    area_under_curve,
    d_prime,
    det_curve,
    equal_error_rate,
    histogram,
    tar_at_far,
)
from mstkd_serve.fairness.schema import (
    FAR_TARGETS,
    DataDescription,
    GlobalMetrics,
    GroupMetrics,
    Metrics,
    ModelDescription,
    OperatingPoint,
)
from mstkd_serve.fairness.scores import Scores
from mstkd_serve.fairness.thresholds import best_threshold_of, ten_fold_accuracy


def evaluate(
    scores: Scores,
    *,
    threshold: float | None = None,
    ddof: Literal[0, 1] = 0,
    bootstrap: int = 0,
    seed: int = 0,
    fmr_targets: Sequence[float] = (),
    model: ModelDescription | None = None,
) -> Metrics:
    """Measure a verifier across groups.

    Args:
        scores: The pairs. Impostor pairs across groups (`second_group`) count only in
            `cross_group_fmr`.
        threshold: The global threshold; None takes the one with the best mean accuracy over
            groups, each group weighing the same.
        ddof: Of STD over groups, 0 or 1.
        bootstrap: Number of replicates for intervals, 0 for none.
        seed: Of the bootstrap.
        fmr_targets: Further false match rates to find thresholds for, between 0 and 1.
        model: What is known of the model.

    Raises:
        DataError: The threshold is not finite, an FMR is out of range, a second group is unknown,
            or only pairs across groups are left of a group.
    """
    if threshold is not None and not np.isfinite(threshold):
        raise DataError(f"--threshold {threshold}: a finite number is needed.")
    within = _within_groups(scores)
    members = {
        name: np.flatnonzero(within & (scores.group == index))
        for index, name in enumerate(scores.group_names)
    }
    groups = {
        name: GroupScores.of(scores.score[rows], scores.genuine[rows])
        for name, rows in members.items()
    }
    chosen = _global_threshold(scores, members) if threshold is None else threshold
    own = {
        name: best_threshold_of(scores.score[rows], scores.genuine[rows], np.ones(len(rows)))
        for name, rows in members.items()
    }
    resampled = _resampled(scores, members, chosen, bootstrap, seed)
    low = min(min(group.genuine[0], group.impostor[0]) for group in groups.values())
    high = max(max(group.genuine[-1], group.impostor[-1]) for group in groups.values())
    measured = {
        name: _group_metrics(
            groups[name],
            chosen,
            own[name],
            _ten_fold(scores, rows),
            resampled.get(name),
            (float(low), float(high)),
        )
        for name, rows in members.items()
    }
    mean, spread = summary_intervals(resampled, ddof) if resampled else (None, None)
    metrics = Metrics(
        model=model or ModelDescription(),
        data=DataDescription(
            source=scores.source,
            pairs=len(scores),
            groups=len(groups),
            identities=_identity_count(scores),
        ),
        groups=measured,
        summary=GlobalMetrics(
            **spread_of([_counts(groups[n], chosen) for n in groups], ddof).model_dump(),
            threshold=chosen,
            threshold_source="best_mean_accuracy" if threshold is None else "given",
            std_ddof=ddof,
            per_group_thresholds=spread_of([_counts(groups[n], own[n]) for n in groups], ddof),
            accuracy_mean_interval=mean,
            std_interval=spread,
        ),
        cross_group_fmr=_cross_group_fmr(scores, chosen),
        subgroups=_subgroups(scores, within, chosen),
        calibration=calibration_points(groups, fmr_targets),
    )
    return metrics.model_copy(update={"warnings": cautions_about(metrics, scores)})


def _second_group(scores: Scores) -> NDArray[np.integer]:
    """Return each pair's second group as an index into `group_names`.

    It is the first group where none is stated.

    Raises:
        DataError: A second group has no pairs of its own.
    """
    if "second_group" not in scores.extra:
        return scores.group
    places = {name: index for index, name in enumerate(scores.group_names)}
    names = scores.names["second_group"]
    if unknown := [name for name in names if name and name not in places]:
        raise DataError(
            f"{scores.source}: second_group {unknown[0]!r} is the group of no pair; known are "
            f"{', '.join(scores.group_names)}. Correct its name, or add its pairs."
        )
    lookup = np.array([places.get(name, -1) for name in names])[scores.extra["second_group"]]
    return np.where(lookup < 0, scores.group, lookup)


def _within_groups(scores: Scores) -> NDArray[np.bool_]:
    """Tell which pairs lie within one group."""
    return np.asarray(_second_group(scores) == scores.group, np.bool_)


def _global_threshold(scores: Scores, members: dict[str, NDArray[np.int64]]) -> float:
    rows = np.concatenate(list(members.values()))
    weight = np.concatenate([np.full(len(part), 1 / len(part)) for part in members.values()])
    return best_threshold_of(scores.score[rows], scores.genuine[rows], weight)


def _ten_fold(scores: Scores, rows: NDArray[np.int64]) -> float | None:
    fold = scores.extra["fold"][rows] if "fold" in scores.extra else None
    return ten_fold_accuracy(scores.score[rows], scores.genuine[rows], fold)


def _counts(group: GroupScores, threshold: float) -> GroupCounts:
    return GroupCounts(
        genuine=len(group.genuine),
        impostor=len(group.impostor),
        false_matches=group.false_matches(threshold),
        false_non_matches=group.false_non_matches(threshold),
    )


def _group_metrics(
    group: GroupScores,
    threshold: float,
    own_threshold: float,
    ten_fold: float | None,
    resampled: Resampled | None,
    score_range: tuple[float, float],
) -> GroupMetrics:
    point = group.at(threshold)
    return GroupMetrics(
        genuine=len(group.genuine),
        impostor=len(group.impostor),
        accuracy=point.accuracy,
        accuracy_10fold=ten_fold,
        fmr=point.fmr,
        fnmr=point.fnmr,
        false_matches=group.false_matches(threshold),
        tar_at_far={target: tar_at_far(group, float(target)) for target in FAR_TARGETS},
        eer=equal_error_rate(group),
        auc=area_under_curve(group),
        d_prime=d_prime(group),
        own=group.at(own_threshold),
        accuracy_interval=interval(resampled.accuracy) if resampled else None,
        fmr_interval=interval(resampled.fmr) if resampled else None,
        fnmr_interval=interval(resampled.fnmr) if resampled else None,
        histogram=histogram(group, *score_range),
        det=det_curve(group),
    )


def _resampled(
    scores: Scores,
    members: dict[str, NDArray[np.int64]],
    threshold: float,
    replicates: int,
    seed: int,
) -> dict[str, Resampled]:
    if replicates <= 0:
        return {}
    found = {}
    for index, (name, rows) in enumerate(members.items()):
        genuine = scores.genuine[rows]
        known = {"first_identity", "second_identity"} <= scores.extra.keys()
        first, second = _joint_codes(scores, rows) if known else (None, None)
        decisions = Decisions(genuine, (scores.score[rows] >= threshold) != genuine, first, second)
        found[name] = resample(decisions, replicates, np.random.default_rng([seed, index]))
    return found


def _joint_codes(
    scores: Scores, rows: NDArray[np.int64]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Give both columns of identities, which have codes of their own, codes in common."""
    columns = ("first_identity", "second_identity")
    joint = {name: 0 for column in columns for name in scores.names[column]}
    joint = {name: code for code, name in enumerate(joint)}
    first, second = (
        np.array([joint[name] for name in scores.names[column]])[scores.extra[column][rows]]
        for column in columns
    )
    return first, second


def _identity_count(scores: Scores) -> int | None:
    columns = [scores.names.get(key) for key in ("first_identity", "second_identity")]
    if None in columns:
        return None
    return len({name for column in columns if column for name in column})


def _cross_group_fmr(scores: Scores, threshold: float) -> dict[str, float]:
    """Return the FMR of impostor pairs across each two groups."""
    second = _second_group(scores)
    rows = np.flatnonzero((second != scores.group) & ~scores.genuine)
    ends = np.sort(np.stack([scores.group[rows], second[rows]]), axis=0)
    couple = ends[0] * len(scores.group_names) + ends[1]
    found = {}
    for code in np.unique(couple):
        a, b = divmod(int(code), len(scores.group_names))
        accepted = scores.score[rows[couple == code]] >= threshold
        found[f"{scores.group_names[a]}|{scores.group_names[b]}"] = float(accepted.mean())
    return found


def _subgroups(
    scores: Scores, within: NDArray[np.bool_], threshold: float
) -> dict[str, OperatingPoint]:
    """Return the rates of each subgroup that has genuine and impostor pairs."""
    if "subgroup" not in scores.extra:
        return {}
    found = {}
    for index, group in enumerate(scores.group_names):
        for code, name in enumerate(scores.names["subgroup"]):
            rows = within & (scores.group == index) & (scores.extra["subgroup"] == code)
            genuine = scores.genuine[rows]
            if genuine.any() and not genuine.all():
                found[f"{group}/{name}"] = GroupScores.of(scores.score[rows], genuine).at(threshold)
    return found
