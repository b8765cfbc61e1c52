"""What a recipe may say: every number of a training run, validated."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mstkd_serve.contract import Preprocessing
from mstkd_training.adaptors import ADAPTORS
from mstkd_training.backbones import BACKBONES


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OptimiserSection(Section):
    """SGD with momentum and learning-rate steps.

    Attributes:
        epochs: Passes over the data.
        batch_size: The largest batch.
        learning_rate_at_512: Learning rate for a batch of 512; it scales with the batch size.
        steps: Finished epochs after which the learning rate is multiplied by `step_factor`.
        step_factor: That factor.
        momentum: SGD's momentum.
        weight_decay: L2 penalty on all trained parameters.
        clip_norm: Largest gradient norm over all parameters.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate_at_512: float = Field(gt=0)
    steps: tuple[int, ...] = ()
    step_factor: float = Field(default=0.1, gt=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip_norm: float = Field(default=5.0, gt=0)

    @property
    def learning_rate(self) -> float:
        """The learning rate of this batch size."""
        return self.learning_rate_at_512 * self.batch_size / 512

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        rising = all(a < b for a, b in zip((0, *self.steps), self.steps, strict=False))
        if not rising or any(step >= self.epochs for step in self.steps):
            raise ValueError(
                f"steps {list(self.steps)} must rise and lie between 1 and epochs - 1 "
                f"({self.epochs - 1})"
            )
        return self


class HeadSection(Section):
    """ElasticArcFace; see `heads.elastic_arcface`. The margin is stated, never defaulted."""

    scale: float = Field(gt=0)
    margin_mean: float = Field(ge=0, lt=1.5)
    margin_std: float = Field(ge=0, lt=0.5)


class DataSection(Section):
    """Rendered training faces.

    Attributes:
        source: `rendered`: synthetic faces of `data.rendered`.
        groups: Demographic groups, one teacher each, in the order of concatenation.
        identities_per_group: Identities of each group.
        images_per_identity: Images of each identity.
        nuisance_strength: How much pose, light and the like vary, 1 being the usual.
    """

    source: Literal["rendered"] = "rendered"
    groups: tuple[str, ...] = Field(min_length=1)
    identities_per_group: int = Field(ge=2)
    images_per_identity: int = Field(ge=2)
    nuisance_strength: float = Field(default=1.0, ge=0)

    @field_validator("groups")
    @classmethod
    def _distinct(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if len({group.lower() for group in groups}) != len(groups):
            raise ValueError(f"groups {list(groups)} must differ")
        return groups


class BackboneSection(Section):
    """A backbone's name and the length of its embeddings."""

    name: str
    embedding_dim: int = Field(ge=2, le=65536)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"{name!r} is unknown; use one of {', '.join(BACKBONES)}")
        return name


class TeacherSection(Section):
    """One teacher a group: the same section for all."""

    backbone: BackboneSection
    head: HeadSection
    optimiser: OptimiserSection


class EmbeddingsSection(Section):
    """Embeddings of every image by every teacher; `dtype` is that of the stored array."""

    batch_size: int = Field(default=256, ge=1)
    dtype: Literal["float16", "float32"] = "float32"


class AdaptorSection(Section):
    """The adaptor on the concatenated teacher embeddings."""

    name: str
    embedding_dim: int = Field(ge=2, le=65536)
    head: HeadSection
    optimiser: OptimiserSection

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ADAPTORS:
            raise ValueError(f"{name!r} is unknown; use one of {', '.join(ADAPTORS)}")
        return name


class TargetsSection(Section):
    """The adaptor's output for every image and view."""

    batch_size: int = Field(default=4096, ge=1)


class StudentSection(Section):
    """The student. Its embedding is as long as the adaptor's.

    Attributes:
        backbone: Name of the backbone.
        loss: `a-kd` regresses the targets; `eaf-kd` adds ElasticArcFace over all identities.
        distillation_weight: Factor on the mean squared error of unit vectors.
        head: Needed by `eaf-kd`, refused with `a-kd`.
        optimiser: How it is trained.
    """

    backbone: str
    loss: Literal["a-kd", "eaf-kd"]
    distillation_weight: float = Field(default=10_000.0, gt=0)
    head: HeadSection | None = None
    optimiser: OptimiserSection

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        return BackboneSection._known(name)

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        if (self.loss == "eaf-kd") != (self.head is not None):
            raise ValueError("head is needed with loss eaf-kd, and only with it")
        return self


class TestSection(Section):
    """Held-out identities and their pairs, for `mstkd-train testset`."""

    __test__ = False  # not a pytest class

    identities_per_group: int = Field(ge=2)
    images_per_identity: int = Field(ge=2)
    genuine_per_group: int = Field(ge=1)
    impostor_per_group: int = Field(ge=1)


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
