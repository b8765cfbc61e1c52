"""RFW's all-pairs protocol: every pair of a group's faces, which supports low false match rates.

Wang et al., "Racial Faces in the Wild" (ICCV 2019): about 14,000 genuine and 50 million impostor
pairs a group, where its pair lists have 3,000 of each.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.cautions import serious_first, shared_identities
from mstkd_serve.fairness.evaluate import evaluate_groups
from mstkd_serve.fairness.rates import GroupScores
from mstkd_serve.fairness.schema import Metrics, ModelDescription

_BLOCK = 1024


def evaluate_all_pairs(
    embeddings: NDArray[np.float32],
    identities: NDArray[Any],
    groups: Sequence[str],
    *,
    source: str = "all pairs",
    threshold: float | None = None,
    ddof: Literal[0, 1] = 0,
    fmr_targets: Sequence[float] = (),
    model: ModelDescription | None = None,
) -> Metrics:
    """Measure a verifier on every pair of faces within each group.

    The pairs share faces, so there are no intervals; and hardly one in a thousand is genuine, so
    the accuracies mean little: read FMR, FNMR and `tar_at_far`. Four groups of 10,000 faces take
    some 1.5 GiB.

    Args:
        embeddings: float32 `(N, dim)`, unit norm.
        identities: `(N,)` numbers or names.
        groups: `(N,)` names.
        source: Where the embeddings came from.
        threshold: As in `evaluate`.
        ddof: As in `evaluate`.
        fmr_targets: As in `evaluate`.
        model: As in `evaluate`.

    Raises:
        DataError: Lengths differ, an embedding is not of unit norm, a group lacks genuine or
            impostor pairs, or an option is out of range.
    """
    names, group_codes = np.unique(np.asarray(groups, np.str_), return_inverse=True)
    known, codes = np.unique(identities, return_inverse=True)
    if not len(embeddings) == len(codes) == len(group_codes) or len(codes) == 0:
        raise DataError(
            f"{len(embeddings)} embeddings, {len(codes)} identities and {len(group_codes)} groups: "
            "give one identity and one group for each embedding, and at least one."
        )
    scored, members = {}, {}
    for index, name in enumerate(names.tolist()):
        rows = np.flatnonzero(group_codes == index)
        members[name] = [str(identity) for identity in known[np.unique(codes[rows])]]
        try:
            scored[name] = all_pair_scores(embeddings[rows], codes[rows])
        except DataError as error:
            raise DataError(f"group {name!r}: {error}") from error
    metrics = evaluate_groups(
        scored, source, threshold=threshold, ddof=ddof, fmr_targets=fmr_targets, model=model
    )
    return metrics.model_copy(
        update={
            "data": metrics.data.model_copy(update={"identities": len(known)}),
            "warnings": serious_first([*metrics.warnings, *shared_identities(members)]),
        }
    )


def all_pair_scores(
    embeddings: NDArray[np.float32], identities: NDArray[np.integer]
) -> GroupScores:
    """Score every unordered pair of one group's faces by cosine, exactly, a block at a time.

    Memory is 4 bytes a pair (200 MB for 50 million) and one block of 1,024 rows of scores.

    Args:
        embeddings: float32 `(N, dim)`, unit norm, of one group.
        identities: int `(N,)`.

    Returns:
        Ascending float32 scores of the genuine and of the impostor pairs.

    Raises:
        DataError: Lengths differ, an embedding is not of unit norm, or there is no genuine or no
            impostor pair.
    """
    embeddings = np.asarray(embeddings, np.float32)
    count = len(embeddings)
    if embeddings.ndim != 2 or identities.shape != (count,):
        raise DataError(
            f"embeddings {embeddings.shape} and identities {identities.shape}: give (N, dim) and "
            "one identity for each."
        )
    norms = np.linalg.norm(embeddings, axis=1)
    if not np.allclose(norms, 1, atol=1e-3):
        worst = int(np.argmax(np.abs(norms - 1)))
        raise DataError(f"embedding {worst} has norm {norms[worst]:.4g}: give unit embeddings.")
    sizes = np.unique(identities, return_counts=True)[1].astype(np.int64)
    genuine_count = int((sizes * (sizes - 1) // 2).sum())
    impostor_count = count * (count - 1) // 2 - genuine_count
    if genuine_count == 0 or impostor_count == 0:
        raise DataError(
            f"{count} faces of {len(sizes)} identities give {genuine_count} genuine and "
            f"{impostor_count} impostor pairs: both kinds are needed."
        )
    genuine = np.empty(genuine_count, np.float32)
    impostor = np.empty(impostor_count, np.float32)
    filled = [0, 0]
    columns = np.arange(count)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        scores = embeddings[rows] @ embeddings[start:].T
        later = columns[start:] > rows[:, np.newaxis]
        same = identities[rows][:, np.newaxis] == identities[start:]
        for kind, (target, mask) in enumerate(((genuine, later & same), (impostor, later & ~same))):
            chosen = scores[mask]
            target[filled[kind] : filled[kind] + len(chosen)] = chosen
            filled[kind] += len(chosen)
    genuine.sort()
    impostor.sort()
    return GroupScores(genuine, impostor)
