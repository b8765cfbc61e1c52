"""Cosine similarity, refused for embeddings that are not comparable."""

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import ContractMismatch, InvalidFace
from mstkd_client._types import Embeddings


def similarity(
    first: Embeddings, second: Embeddings, *, all_pairs: bool = False
) -> NDArray[np.float32]:
    """Compare two sets of embeddings: row by row, or each of one with each of the other.

    Args:
        first: Embeddings `(N, dim)`.
        second: Embeddings `(N, dim)` of the same face contract; `(M, dim)` for `all_pairs`.
        all_pairs: Compare each row of `first` with each row of `second`.

    Returns:
        float32 `(N,)`, cosine similarity, -1 to 1; element i compares row i with row i. With
        `all_pairs` float32 `(N, M)`; element i, j compares row i of `first` with row j of
        `second`.

    Raises:
        ContractMismatch: They were made under different face contracts.
        InvalidFace: Their shapes differ, or a row is zero or not finite.
    """
    if first.contract_id != second.contract_id:
        raise ContractMismatch(
            f"embeddings of contract {first.contract_id} (model {first.model_name!r}) and of "
            f"contract {second.contract_id} (model {second.model_name!r}) are not comparable. "
            "Embed both sides with one model."
        )
    if not all_pairs and first.vectors.shape != second.vectors.shape:
        raise InvalidFace(
            f"embeddings of shapes {first.vectors.shape} and {second.vectors.shape} cannot be "
            "paired row by row. Give as many on one side as on the other, or all_pairs=True."
        )
    if not all_pairs:
        return cosine(first.vectors, second.vectors)
    scores = _unit_rows(first.vectors, "first") @ _unit_rows(second.vectors, "second").T
    clipped: NDArray[np.float32] = np.clip(scores, -1, 1).astype(np.float32)
    return clipped


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine similarity of each row, float32 `(N,)`, of two float32 `(N, dim)`.

    Raises:
        InvalidFace: A row is zero or not finite.
    """
    units = _unit_rows(first, "first"), _unit_rows(second, "second")
    scores: NDArray[np.float64] = np.einsum("nd,nd->n", *units)
    return scores.astype(np.float32)  # which rounds 1 + 2e-16 to 1


def _unit_rows(vectors: NDArray[np.float32], side: str) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unusable = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if unusable.size:
        raise InvalidFace(
            f"row {int(unusable[0])} of the {side} embeddings is zero or not finite, so it has "
            "no direction to compare. Embed that face again."
        )
    unit: NDArray[np.float64] = wide / lengths
    return unit
