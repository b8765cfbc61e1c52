"""Adaptors: the teachers' concatenated embeddings in, one common embedding out."""

from typing import Final

from torch import nn

from mstkd_serve.errors import RecipeError
from mstkd_training.adaptors.dual import DROPOUT, DualLayer
from mstkd_training.adaptors.sl import SingleLayer

ADAPTORS: Final = ("sl", "dul", "dldpo")
"""Names that `build_adaptor` knows."""

__all__ = ["ADAPTORS", "build_adaptor"]


def build_adaptor(name: str, in_dim: int, embedding_dim: int) -> nn.Module:
    """Build an adaptor with fresh weights from torch's global random state.

    Args:
        name: One of `ADAPTORS`.
        in_dim: Sum of the teachers' embedding lengths.
        embedding_dim: Length of the common embedding.

    Returns:
        A module from `(N, in_dim)` to `(N, embedding_dim)`, not normalised.

    Raises:
        RecipeError: The name is unknown.
    """
    if name == "sl":
        return SingleLayer(in_dim, embedding_dim)
    if name == "dul":
        return DualLayer(in_dim, embedding_dim)
    if name == "dldpo":
        return DualLayer(in_dim, embedding_dim, DROPOUT)
    raise RecipeError(f"adaptor {name!r} is unknown. Use one of {', '.join(ADAPTORS)}.")
