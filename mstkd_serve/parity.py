"""How closely two sets of embeddings agree, and the gate that refuses when they do not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import ParityError


@dataclass(frozen=True)
class Agreement:
    """The worst row of a comparison of unit embeddings.

    Attributes:
        min_cosine: Least cosine similarity over the rows, -1 to 1.
        max_abs: Largest absolute difference of one component.
        rows: Number of embeddings compared.
    """

    min_cosine: float
    max_abs: float
    rows: int

    def __str__(self) -> str:
        return f"cosine >= {self.min_cosine:.7f}, max abs {self.max_abs:.2e}, {self.rows} faces"

    def require(self, what: str, *, min_cosine: float, max_abs: float) -> None:
        """Refuse a disagreement.

        Args:
            what: What was compared, for the error message.
            min_cosine: The least cosine that passes.
            max_abs: The largest difference of one component that passes.

        Raises:
            ParityError: A bound is broken, or a value is not a number.
        """
        if not (self.min_cosine >= min_cosine and self.max_abs <= max_abs):
            raise ParityError(
                f"{what}: the embeddings differ ({self}); "
                f"required are cosine >= {min_cosine} and max abs <= {max_abs}."
            )


def unit_rows(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row of `(N, dim)` to unit L2 norm; a zero row stays zero."""
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(norms, 1e-12), np.float32)


def compare(actual: NDArray[np.float32], expected: NDArray[np.float32], what: str) -> Agreement:
    """Compare two `(N, dim)` arrays of unit embeddings row by row.

    Raises:
        ParityError: The shapes differ.
    """
    if actual.shape != expected.shape:
        raise ParityError(
            f"{what}: the embeddings have shape {actual.shape} instead of {expected.shape}."
        )
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN fails every bound
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = np.sum(a * b, axis=1) / norms
        largest = np.abs(a - b).max()
    return Agreement(min_cosine=float(cosines.min()), max_abs=float(largest), rows=len(actual))
