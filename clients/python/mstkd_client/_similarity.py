"""Cosine similarity, refused for embeddings that are not comparable."""

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import ContractMismatch, InvalidFace
from mstkd_client._types import Embeddings


def similarity(first: Embeddings, second: Embeddings) -> NDArray[np.float32]:
    """Compare two sets of embeddings row by row.

    Args:
        first: Embeddings `(N, dim)`.
        second: Embeddings `(N, dim)` of the same face contract.

    Returns:
        float32 `(N,)`, cosine similarity, -1 to 1; element i compares row i with row i.

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
    if first.vectors.shape != second.vectors.shape:
        raise InvalidFace(
            f"embeddings of shapes {first.vectors.shape} and {second.vectors.shape} cannot be "
            "paired row by row. Give as many on one side as on the other."
        )
    first_unit, second_unit = _unit_rows(first, "first"), _unit_rows(second, "second")
    scores: NDArray[np.float64] = np.einsum("nd,nd->n", first_unit, second_unit)
    return scores.astype(np.float32)  # which rounds 1 + 2e-16 to 1


def _unit_rows(embeddings: Embeddings, side: str) -> NDArray[np.float64]:
    vectors = embeddings.vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unusable = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if unusable.size:
        raise InvalidFace(
            f"row {int(unusable[0])} of the {side} embeddings is zero or not finite, so it has "
            "no direction to compare. Embed that face again."
        )
    unit: NDArray[np.float64] = vectors / lengths
    return unit
