"""Which networks and heads are trained."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mstkd_training.backbones import BACKBONES
from mstkd_training.recipe.section import Section

HeadName = Literal[
    "elastic-arcface",
    "elastic-arcface-plus",
    "elastic-cosface",
    "elastic-cosface-plus",
    "arcface",
    "cosface",
    "curricularface",
    "adaface",
]


class HeadSection(Section):
    """A margin head of `mstkd_training.heads`. The margin is stated, never defaulted.

    Attributes:
        name: Which head.
        scale: Factor on the logits, usually 64.
        margin_mean: The margin, or the mean that an elastic one is drawn around: radians, or
            cosine for the cosface heads.
        margin_std: Standard deviation of an elastic margin; needed by the elastic heads and
            refused by the others, whose margin is fixed.
        momentum: curricularface and adaface: weight of a new batch in the running statistics;
            None takes the papers' 0.01.
        concentration: adaface: how strongly the embedding's length moves the margin; None takes
            the paper's 0.333.
    """

    name: HeadName = "elastic-arcface"
    scale: float = Field(gt=0)
    margin_mean: float = Field(ge=0, lt=1.5)
    margin_std: float | None = Field(default=None, ge=0, lt=0.5)
    momentum: float | None = Field(default=None, gt=0, le=1)
    concentration: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.name.startswith("elastic") != (self.margin_std is not None):
            raise ValueError(f"margin_std belongs to the elastic heads only; name is {self.name}")
        if self.momentum is not None and self.name not in ("curricularface", "adaface"):
            raise ValueError(f"momentum belongs to curricularface and adaface, not {self.name}")
        if self.concentration is not None and self.name != "adaface":
            raise ValueError(f"concentration belongs to adaface, not {self.name}")
        return self


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
