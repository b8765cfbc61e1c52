"""Margin heads: embeddings and labels in, logits out.

They are written here because no kept library has them in this form: pytorch-metric-learning, the
nearest, has ArcFace and CosFace but none of the others, and takes its margin through an arc
cosine of a clamped cosine, whose gradient vanishes near +-1.
"""

from collections.abc import Callable
from typing import Final

from torch import nn

from mstkd_training.heads.adaface import CONCENTRATION, AdaFace
from mstkd_training.heads.cosine import CosineHead
from mstkd_training.heads.curricularface import CurricularFace
from mstkd_training.heads.elastic import ElasticArcFace, ElasticCosFace
from mstkd_training.heads.statistic import MOMENTUM
from mstkd_training.recipe.networks import HeadName, HeadSection

__all__ = ["HEADS", "build_head"]


def build_head(section: HeadSection, embedding_dim: int, classes: int) -> nn.Module:
    """Build a head with fresh weights from torch's global random state.

    Args:
        section: Which head, with its margin.
        embedding_dim: Length of an embedding.
        classes: Number of identities.

    Returns:
        A module from embeddings `(N, embedding_dim)` of any length and labels int64 `(N,)` to
        float32 logits `(N, classes)`. Its buffers, where it has any, are running statistics that
        belong to a checkpoint.
    """
    return HEADS[section.name](section, embedding_dim, classes)


def _elastic(
    kind: type[ElasticArcFace] | type[ElasticCosFace], ordered: bool = False
) -> Callable[[HeadSection, int, int], CosineHead]:
    def build(section: HeadSection, embedding_dim: int, classes: int) -> CosineHead:
        return kind(
            embedding_dim,
            classes,
            scale=section.scale,
            margin_mean=section.margin_mean,
            margin_std=section.margin_std or 0.0,
            ordered=ordered,
        )

    return build


def _curricularface(section: HeadSection, embedding_dim: int, classes: int) -> CosineHead:
    return CurricularFace(
        embedding_dim,
        classes,
        scale=section.scale,
        margin=section.margin_mean,
        momentum=section.momentum or MOMENTUM,
    )


def _adaface(section: HeadSection, embedding_dim: int, classes: int) -> CosineHead:
    return AdaFace(
        embedding_dim,
        classes,
        scale=section.scale,
        margin=section.margin_mean,
        concentration=section.concentration or CONCENTRATION,
        momentum=section.momentum or MOMENTUM,
    )


HEADS: Final[dict[HeadName, Callable[[HeadSection, int, int], CosineHead]]] = {
    "elastic-arcface": _elastic(ElasticArcFace),
    "elastic-arcface-plus": _elastic(ElasticArcFace, ordered=True),
    "elastic-cosface": _elastic(ElasticCosFace),
    "elastic-cosface-plus": _elastic(ElasticCosFace, ordered=True),
    "arcface": _elastic(ElasticArcFace),
    "cosface": _elastic(ElasticCosFace),
    "curricularface": _curricularface,
    "adaface": _adaface,
}
"""What builds each head."""
