"""RFW's all-pairs protocol: every pair of a group's faces, which supports low false match rates.

Wang et al., "Racial Faces in the Wild" (ICCV 2019): about 14,000 genuine and 50 million impostor
pairs a group, where its pair lists have 3,000 of each.
"""

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.rates import GroupScores

_BLOCK = 1024


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
