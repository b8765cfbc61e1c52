"""What a reader must know before trusting the figures."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.identities import COLUMNS, contradictions, identity_names
from mstkd_serve.fairness.leaks import file_digests, find_leaks
from mstkd_serve.fairness.pair_lists import ImagePair
from mstkd_serve.fairness.rates import FEWEST_EXPECTED_ERRORS
from mstkd_serve.fairness.schema import Caution, Metrics
from mstkd_serve.fairness.scores import Scores
from mstkd_serve.fairness.slices import cross_group_rows, rows_by_group, subgroup_rows

UNEVEN: Final = 0.05
"""Shares of genuine pairs further apart than this make accuracies of groups incomparable."""
FEW_PAIRS: Final = 1000
"""Fewer pairs of a kind than this leave rates of a percent with ten errors or fewer."""


def serious_first(cautions: Iterable[Caution]) -> tuple[Caution, ...]:
    """Sort warnings by severity, otherwise keeping their order."""
    return tuple(sorted(cautions, key=lambda caution: caution.severity != "serious"))


def cautions_about(metrics: Metrics) -> list[Caution]:
    """Return the warnings that the figures themselves give rise to."""
    found = [*_about_groups(metrics), *_about_mix(metrics)]
    if len(metrics.groups) == 1:
        found.append(
            Caution(
                code="one_group",
                severity="serious",
                message="There is one group only: nothing can be said about fairness.",
            )
        )
    if len({value for group in metrics.groups.values() for value in group.det.threshold}) == 1:
        found.append(
            Caution(
                code="constant_scores",
                severity="serious",
                message="All scores are equal: the model tells nobody apart.",
            )
        )
    if metrics.summary.threshold_source == "best_mean_accuracy":
        found.append(
            Caution(
                code="threshold_chosen_on_test",
                message="The global threshold was chosen on the very pairs it is measured on; "
                "accuracies at it are slightly optimistic. The ten-fold figures are not.",
            )
        )
    return found


def cautions_about_pairs(scores: Scores) -> list[Caution]:
    """Return the warnings that need the pairs themselves."""
    found = shared_identities(_identities_by_group(scores))
    if wrong := contradictions(scores):
        found.append(
            Caution(
                code="labels_contradict_identities",
                severity="serious",
                message=f"{wrong} pairs are called genuine though their identities differ, or "
                "impostor though they are one: correct genuine or the identities.",
            )
        )
    if any(column in scores.names for column in COLUMNS) and identity_names(scores) is None:
        found.append(
            Caution(
                code="identities_incomplete",
                message="Not every face has an identity, so identities were left out of account: "
                "intervals take all pairs for independent, and are too narrow if they are not.",
            )
        )
    folds = len(np.unique(scores.extra["fold"])) if "fold" in scores.extra else 10
    if folds != 10:
        found.append(
            Caution(
                code="not_ten_folds",
                message=f"The pairs have {folds} folds: their accuracy is over these, not over the "
                "ten of LFW's protocol.",
            )
        )
    thin = [name for name, rows in cross_group_rows(scores).items() if len(rows) < FEW_PAIRS]
    if thin:
        found.append(
            Caution(
                code="few_cross_group",
                message=f"Fewer than {FEW_PAIRS} impostor pairs across {', '.join(thin)}: their "
                "FMR is rough.",
            )
        )
    if "subgroup" in scores.extra:
        found += _about_subgroups(scores)
    return found


def _about_subgroups(scores: Scores) -> list[Caution]:
    parts = subgroup_rows(scores, rows_by_group(scores)).items()
    genuine = {name: int(np.count_nonzero(scores.genuine[rows])) for name, rows in parts}
    fewest = {name: min(genuine[name], len(rows) - genuine[name]) for name, rows in parts}
    thin = [f"{name} ({count})" for name, count in fewest.items() if count < FEW_PAIRS]
    if not thin:
        return []
    return [
        Caution(
            code="few_subgroup",
            message=f"Fewer than {FEW_PAIRS} genuine or impostor pairs in {', '.join(thin)}: the "
            "rates of these subgroups are rough.",
        )
    ]


def training_leak(scores: Scores, training: Iterable[str]) -> Caution | None:
    """Warn of test identities that were trained on.

    Raises:
        DataError: The scores name no identities.
    """
    tested = identity_names(scores)
    if tested is None:
        raise DataError(
            f"{scores.source}: names no identities, so leaks cannot be looked for. Add the "
            "columns first_identity and second_identity, for every pair."
        )
    leaks = find_leaks({"training": (line.strip() for line in training), "test": tested})
    leaks = [leak for leak in leaks if leak.item]
    if not leaks:
        return None
    return Caution(
        code="trained_on_test_identities",
        severity="serious",
        message=f"{len(leaks)} of {len(tested)} test identities are in the training data, such as "
        f"{', '.join(leak.item for leak in leaks[:5])}: the figures are too good.",
    )


def image_leaks(pairs: Sequence[ImagePair], training: Path | None = None) -> list[Caution]:
    """Warn of image files (by content) in two groups, or also in a folder of training images.

    Raises:
        DataError: The folder holds no files.
        OSError: A file cannot be read.
    """
    by_group: dict[str, set[Path]] = {}
    for pair in pairs:
        by_group.setdefault(pair.group, set()).update((pair.first, pair.second))
    digests = {group: file_digests(sorted(paths)) for group, paths in by_group.items()}
    found = []
    shared = find_leaks(digests)
    if shared:
        first = digests[shared[0].places[0]][shared[0].item]
        found.append(
            Caution(
                code="image_in_two_groups",
                severity="serious",
                message=f"{len(shared)} images are in more than one group, such as {first} "
                f"({', '.join(shared[0].places)}).",
            )
        )
    if training is not None:
        trained = file_digests(sorted(path for path in training.rglob("*") if path.is_file()))
        if not trained:
            raise DataError(f"{training}: holds no files. Give the folder of training images.")
        tested = {digest: path for images in digests.values() for digest, path in images.items()}
        both = sorted(trained.keys() & tested.keys())
        if both:
            found.append(
                Caution(
                    code="trained_on_test_images",
                    severity="serious",
                    message=f"{len(both)} of {len(tested)} test images are in the training data, "
                    f"such as {tested[both[0]]}: the figures are too good.",
                )
            )
    return found


def _about_groups(metrics: Metrics) -> list[Caution]:
    found = []
    for name, group in metrics.groups.items():
        for kind, count in (("genuine", group.genuine), ("impostor", group.impostor)):
            if count < FEW_PAIRS:
                found.append(
                    Caution(
                        code=f"few_{kind}",
                        group=name,
                        severity="serious",
                        message=f"{name} has {count} {kind} pairs only; at least {FEW_PAIRS} are "
                        "needed to speak of error rates of a percent.",
                    )
                )
        if group.false_matches == 0:
            found.append(
                Caution(
                    code="no_false_match",
                    group=name,
                    message=f"{name} has no false match at the global threshold: ratios of FMR "
                    "over groups are undefined, smoothed ones stand in their place.",
                )
            )
        if group.fnmr == 0:
            found.append(
                Caution(
                    code="no_false_non_match",
                    group=name,
                    message=f"{name} has no false non-match at the global threshold: ratios of "
                    "FNMR over groups are undefined, smoothed ones stand in their place.",
                )
            )
    unsupported = [
        name for name, group in metrics.groups.items() if not group.tar_at_far["1e-3"].supported
    ]
    if unsupported:
        found.append(
            Caution(
                code="far_unsupported",
                message=f"Too few impostor pairs to speak of a FAR of 0.1 % "
                f"({', '.join(unsupported)}): fewer than {FEWEST_EXPECTED_ERRORS} false matches "
                "would be expected. Such cells are marked.",
            )
        )
    return found


def _about_mix(metrics: Metrics) -> list[Caution]:
    shares = [g.genuine / (g.genuine + g.impostor) for g in metrics.groups.values()]
    if max(shares) - min(shares) <= UNEVEN and min(shares) >= 0.1 and max(shares) <= 0.9:
        return []
    return [
        Caution(
            code="uneven_mix",
            message=f"Genuine pairs are {min(shares):.2g} to {max(shares):.2g} of a group's pairs. "
            "Accuracies, SER and DemPar depend on that share: compare FMR and FNMR instead.",
        )
    ]


def _identities_by_group(scores: Scores) -> dict[str, set[str]]:
    """Return each group's identities; none where pairs across groups leave that open."""
    lists: dict[str, set[str]] = {name: set() for name in scores.group_names}
    for key in COLUMNS:
        if key not in scores.extra or "second_group" in scores.extra:
            return {}
        names = len(scores.names[key])
        for couple in np.unique(scores.group.astype(np.int64) * names + scores.extra[key]):
            group, code = divmod(int(couple), names)
            lists[scores.group_names[group]].add(scores.names[key][code])
    return lists


def shared_identities(by_group: Mapping[str, Iterable[str]]) -> list[Caution]:
    """Report identities that sit in several groups; the empty name is none."""
    leaks = [leak for leak in find_leaks(by_group) if leak.item]
    if not leaks:
        return []
    shown = ", ".join(f"{leak.item} ({', '.join(leak.places)})" for leak in leaks[:5])
    return [
        Caution(
            code="identity_in_two_groups",
            severity="serious",
            message=f"{len(leaks)} identities are in more than one group: {shown}"
            f"{' and more' if len(leaks) > 5 else ''}.",
        )
    ]
