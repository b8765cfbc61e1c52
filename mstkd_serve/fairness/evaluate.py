"""From scores to everything that `metrics.json` holds."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.cautions import cautions_about, cautions_about_pairs, serious_first
from mstkd_serve.fairness.disparity import GroupCounts, spread_of
from mstkd_serve.fairness.identities import identity_names, joint_codes
from mstkd_serve.fairness.intervals import (
    Decisions,
    GroupIntervals,
    Resampled,
    group_intervals,
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
)
from mstkd_serve.fairness.scores import Scores
from mstkd_serve.fairness.slices import cross_group_fmr, rows_by_group, subgroup_points
from mstkd_serve.fairness.thresholds import best_threshold, ten_fold_accuracy


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
            a genuine pair lies across groups, or a group has no impostor pairs within.
    """
    rows = rows_by_group(scores)
    groups = {
        name: GroupScores.of(scores.score[members], scores.genuine[members])
        for name, members in rows.items()
    }
    plain = evaluate_groups(
        groups,
        scores.source,
        threshold=threshold,
        ddof=ddof,
        fmr_targets=fmr_targets,
        model=model,
    )
    chosen = plain.summary.threshold
    resampled = _resampled(scores, rows, chosen, bootstrap, seed)
    replicates = {name: replicate for name, (replicate, _) in resampled.items()}
    mean, spread = summary_intervals(replicates, ddof) if resampled else (None, None)
    measured = {}
    for name, group in plain.groups.items():
        update: dict[str, object] = {"accuracy_10fold": _ten_fold(scores, rows[name])}
        if resampled:
            intervals = resampled[name][1]
            update["accuracy_interval"] = intervals.accuracy
            update["fmr_interval"] = intervals.fmr
            update["fnmr_interval"] = intervals.fnmr
        measured[name] = group.model_copy(update=update)
    names = identity_names(scores)
    return plain.model_copy(
        update={
            "data": plain.data.model_copy(
                update={
                    "pairs": len(scores),
                    "identities": len(names) if names else None,
                    "folds": "given" if "fold" in scores.extra else "contiguous",
                }
            ),
            "groups": measured,
            "summary": plain.summary.model_copy(
                update={"accuracy_mean_interval": mean, "std_interval": spread}
            ),
            "cross_group_fmr": cross_group_fmr(scores, chosen),
            "subgroups": subgroup_points(scores, rows, chosen),
            "warnings": serious_first([*plain.warnings, *cautions_about_pairs(scores)]),
        }
    )


def evaluate_groups(
    groups: Mapping[str, GroupScores],
    source: str,
    *,
    threshold: float | None = None,
    ddof: Literal[0, 1] = 0,
    fmr_targets: Sequence[float] = (),
    model: ModelDescription | None = None,
) -> Metrics:
    """Measure a verifier across groups of which only the sorted scores are known.

    Such are the scores of all pairs (`all_pair_scores`). There are no folds and no intervals.

    Args:
        groups: At least one, by name.
        source: Where the scores came from.
        threshold: As in `evaluate`.
        ddof: As in `evaluate`.
        fmr_targets: As in `evaluate`.
        model: As in `evaluate`.

    Raises:
        DataError: The threshold is not finite, or an FMR is out of range.
    """
    if threshold is not None and not np.isfinite(threshold):
        raise DataError(f"--threshold {threshold}: a finite number is needed.")
    groups = {name: groups[name] for name in sorted(groups)}
    chosen = best_threshold([*groups.values()]) if threshold is None else threshold
    own = {name: best_threshold([group]) for name, group in groups.items()}
    low = min(min(group.genuine[0], group.impostor[0]) for group in groups.values())
    high = max(max(group.genuine[-1], group.impostor[-1]) for group in groups.values())
    metrics = Metrics(
        model=model or ModelDescription(),
        data=DataDescription(
            source=source,
            pairs=sum(len(group.genuine) + len(group.impostor) for group in groups.values()),
            groups=len(groups),
        ),
        groups={
            name: _group_metrics(group, chosen, own[name], (float(low), float(high)))
            for name, group in groups.items()
        },
        summary=GlobalMetrics(
            **spread_of([_counts(groups[n], chosen) for n in groups], ddof).model_dump(),
            threshold=chosen,
            threshold_source="best_mean_accuracy" if threshold is None else "given",
            std_ddof=ddof,
            per_group_thresholds=spread_of([_counts(groups[n], own[n]) for n in groups], ddof),
        ),
        calibration=calibration_points(groups, fmr_targets),
    )
    return metrics.model_copy(update={"warnings": serious_first(cautions_about(metrics))})


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
    score_range: tuple[float, float],
) -> GroupMetrics:
    point = group.at(threshold)
    return GroupMetrics(
        genuine=len(group.genuine),
        impostor=len(group.impostor),
        accuracy=point.accuracy,
        accuracy_10fold=None,
        fmr=point.fmr,
        fnmr=point.fnmr,
        false_matches=group.false_matches(threshold),
        tar_at_far={target: tar_at_far(group, float(target)) for target in FAR_TARGETS},
        eer=equal_error_rate(group),
        auc=area_under_curve(group),
        d_prime=d_prime(group),
        own=group.at(own_threshold),
        histogram=histogram(group, *score_range),
        det=det_curve(group),
    )


def _resampled(
    scores: Scores,
    members: dict[str, NDArray[np.int64]],
    threshold: float,
    replicates: int,
    seed: int,
) -> dict[str, tuple[Resampled, GroupIntervals]]:
    if replicates <= 0:
        return {}
    codes = joint_codes(scores)
    found = {}
    for index, (name, rows) in enumerate(members.items()):
        genuine = scores.genuine[rows]
        first, second = (codes[0][rows], codes[1][rows]) if codes else (None, None)
        decisions = Decisions(genuine, (scores.score[rows] >= threshold) != genuine, first, second)
        resampled = resample(decisions, replicates, np.random.default_rng([seed, index]))
        found[name] = (resampled, group_intervals(decisions, resampled))
    return found
