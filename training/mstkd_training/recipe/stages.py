"""The stages that train, and the whole recipe."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mstkd_serve.contract import Preprocessing
from mstkd_training.adaptors import ADAPTORS
from mstkd_training.recipe.data import (
    DataSection,
    EmbeddingsSection,
    TargetsSection,
    TestSection,
)
from mstkd_training.recipe.networks import BackboneSection, HeadSection, known_backbone
from mstkd_training.recipe.optimiser import OptimiserSection, SelectionSection
from mstkd_training.recipe.section import Section


class TeacherSection(Section):
    """As many teachers as groups: the same section for all.

    Attributes:
        kind: `specialised`: each teacher sees one group's identities. `generalist`: each sees
            an equal share of every group's identities and no identity of another teacher's,
            which is the paper's baseline.
        backbone: Their network.
        head: Their margin head, over the identities that a teacher sees.
        optimiser: How they are trained.
        selection: Which epoch is kept.
    """

    kind: Literal["specialised", "generalist"] = "specialised"
    backbone: BackboneSection
    head: HeadSection
    optimiser: OptimiserSection
    selection: SelectionSection = SelectionSection()


class AdaptorSection(Section):
    """The adaptor on the concatenated teacher embeddings."""

    name: str
    embedding_dim: int = Field(ge=2, le=65536)
    head: HeadSection
    optimiser: OptimiserSection
    selection: SelectionSection = SelectionSection()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ADAPTORS:
            raise ValueError(f"{name!r} is unknown; use one of {', '.join(ADAPTORS)}")
        return name


class StudentSection(Section):
    """The student. Its embedding is as long as the adaptor's.

    Attributes:
        backbone: Name of the backbone.
        loss: `a-kd` regresses the targets; `eaf-kd` adds a margin head over all identities.
        distillation_weight: Factor on the mean squared error of unit vectors.
        head: Needed by `eaf-kd`, refused with `a-kd`.
        optimiser: How it is trained.
        selection: Which epoch is kept.
    """

    backbone: str
    loss: Literal["a-kd", "eaf-kd"]
    distillation_weight: float = Field(default=10_000.0, gt=0)
    head: HeadSection | None = None
    optimiser: OptimiserSection
    selection: SelectionSection = SelectionSection()

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_backbone(name)

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        if (self.loss == "eaf-kd") != (self.head is not None):
            raise ValueError("head is needed with loss eaf-kd, and only with it")
        return self


class Recipe(Section):
    """A whole pipeline, data to student."""

    seed: int = Field(ge=0)
    preprocessing: Preprocessing = Preprocessing()
    data: DataSection
    teacher: TeacherSection
    embeddings: EmbeddingsSection = EmbeddingsSection()
    adaptor: AdaptorSection
    targets: TargetsSection = TargetsSection()
    student: StudentSection
    test: TestSection

    @field_validator("preprocessing")
    @classmethod
    def _one_view(cls, preprocessing: Preprocessing) -> Preprocessing:
        if preprocessing.flip:
            raise ValueError("flip belongs to the export (mstkd-train export --flip)")
        return preprocessing
