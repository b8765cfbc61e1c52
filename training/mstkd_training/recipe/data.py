"""What is trained and tested on, and what is stored of it."""

from typing import Literal

from pydantic import Field, field_validator

from mstkd_training.recipe.section import Section


class ValidationSection(Section):
    """Identities of the training data that no network is trained on, to choose a checkpoint by.

    Attributes:
        share: Share of each group's identities, at least two of them; 0 holds out none.
        genuine_per_group: Most genuine pairs of a group.
        impostor_per_group: Most impostor pairs of a group.
    """

    share: float = Field(default=0.05, ge=0, lt=1)
    genuine_per_group: int = Field(default=500, ge=1)
    impostor_per_group: int = Field(default=500, ge=1)


class DataSection(Section):
    """Rendered training faces.

    Attributes:
        source: `rendered`: synthetic faces of `data.rendered`.
        groups: Demographic groups, one teacher each, in the order of concatenation.
        identities_per_group: Identities of each group.
        images_per_identity: Images of each identity.
        nuisance_strength: How much pose, light and the like vary, 1 being the usual.
        validation: The identities that are held out of training.
    """

    source: Literal["rendered"] = "rendered"
    groups: tuple[str, ...] = Field(min_length=1)
    identities_per_group: int = Field(ge=2)
    images_per_identity: int = Field(ge=2)
    nuisance_strength: float = Field(default=1.0, ge=0)
    validation: ValidationSection = ValidationSection()

    @field_validator("groups")
    @classmethod
    def _distinct(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if len({group.lower() for group in groups}) != len(groups):
            raise ValueError(f"groups {list(groups)} must differ")
        return groups


class EmbeddingsSection(Section):
    """Embeddings of every image by every teacher; `dtype` is that of the stored array."""

    batch_size: int = Field(default=256, ge=1)
    dtype: Literal["float16", "float32"] = "float32"


class TargetsSection(Section):
    """The adaptor's output for every image and view."""

    batch_size: int = Field(default=4096, ge=1)


class TestSection(Section):
    """Held-out identities and their pairs, for `mstkd-train testset`."""

    __test__ = False  # not a pytest class

    identities_per_group: int = Field(ge=2)
    images_per_identity: int = Field(ge=2)
    genuine_per_group: int = Field(ge=1)
    impostor_per_group: int = Field(ge=1)
