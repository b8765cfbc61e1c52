"""Which networks and heads are trained."""

from pydantic import Field, field_validator

from mstkd_training.backbones import BACKBONES
from mstkd_training.recipe.section import Section


class HeadSection(Section):
    """ElasticArcFace; see `heads.elastic_arcface`. The margin is stated, never defaulted."""

    scale: float = Field(gt=0)
    margin_mean: float = Field(ge=0, lt=1.5)
    margin_std: float = Field(ge=0, lt=0.5)


class BackboneSection(Section):
    """A backbone's name and the length of its embeddings."""

    name: str
    embedding_dim: int = Field(ge=2, le=65536)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_backbone(name)


def known_backbone(name: str) -> str:
    """Return `name` where it names a backbone; raise ValueError otherwise."""
    if name not in BACKBONES:
        raise ValueError(f"{name!r} is unknown; use one of {', '.join(BACKBONES)}")
    return name
