"""Backbones: normalised faces in, embeddings out (not normalised)."""

from typing import Final

from torch import nn

from mstkd_serve.errors import RecipeError
from mstkd_training.backbones.compact import Compact
from mstkd_training.backbones.iresnet import IRESNETS, build_iresnet
from mstkd_training.backbones.mobilefacenet import MobileFaceNet

BACKBONES: Final = ("compact", "mobilefacenet", *IRESNETS)
"""Names that `build_backbone` knows."""

__all__ = ["BACKBONES", "build_backbone"]


def build_backbone(name: str, embedding_dim: int) -> nn.Module:
    """Build a backbone with fresh weights from torch's global random state.

    Args:
        name: One of `BACKBONES`.
        embedding_dim: Length of an embedding, 1 or more.

    Returns:
        A module from float `(N, 3, 112, 112)` to `(N, embedding_dim)`.

    Raises:
        RecipeError: The name is unknown.
    """
    if name == "compact":
        return Compact(embedding_dim)
    if name == "mobilefacenet":
        return MobileFaceNet(embedding_dim)
    if name in IRESNETS:
        return build_iresnet(name, embedding_dim)
    raise RecipeError(f"backbone {name!r} is unknown. Use one of {', '.join(BACKBONES)}.")
