"""What is trained and tested on, and what is stored of it."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

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


class ColumnsSection(Section):
    """Columns of the CSV file of labels.

    Attributes:
        file: Path of a row's image, with columns in braces, such as `aligned/{name}.png`.
        identity: The column of the identity's name; of its number where the source is `recordio`.
        group: The column of the group.
    """

    file: str = "{file}"
    identity: str = "identity"
    group: str = "group"


class DataSection(Section):
    """The training faces: rendered ones, or real ones of 112 x 112 from the user's own files.

    Attributes:
        source: `rendered`: synthetic faces of `data.rendered`. `folders`: `GROUP/IDENTITY/*.jpg`.
            `labels`: images that a CSV file lists. `recordio`: InsightFace's `train.rec`, one set
            in `path`, or one a group in `path/GROUP`.
        groups: Demographic groups, one teacher each, in the order of concatenation.
        validation: The identities that are held out of training.
        path: The source's folder, relative to the current directory. Its images are copied into
            the data artifact, still encoded; remove that artifact to read the folder again.
        labels: The CSV file of `labels`, and of a `recordio` set that holds several groups,
            relative to `path`.
        columns: The columns of that file.
        labelled: Whether the images' identities are known. False takes `GROUP/*.jpg` of `folders`,
            for an a-KD student of teachers and an adaptor that are there already (`--use`).
        exclude: Identities to leave out, as `IDENTITY` or `GROUP/IDENTITY`.
        resize: Scale images of another size than 112 x 112 instead of refusing them. They must
            be aligned all the same.
        identities_per_group: Rendered identities of each group.
        images_per_identity: Rendered images of each identity.
        nuisance_strength: How much pose, light and the like vary in rendered faces, 1 being
            the usual.
    """

    source: Literal["rendered", "folders", "labels", "recordio"] = "rendered"
    groups: tuple[str, ...] = Field(min_length=1)
    validation: ValidationSection = ValidationSection()
    path: Path | None = None
    labels: Path | None = None
    columns: ColumnsSection = ColumnsSection()
    labelled: bool = True
    exclude: tuple[str, ...] = ()
    resize: bool = False
    identities_per_group: int | None = Field(default=None, ge=2)
    images_per_identity: int | None = Field(default=None, ge=2)
    nuisance_strength: float = Field(default=1.0, ge=0)

    @field_validator("groups")
    @classmethod
    def _distinct(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if len({group.lower() for group in groups}) != len(groups):
            raise ValueError(f"groups {list(groups)} must differ")
        return groups

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "rendered": ("identities_per_group", "images_per_identity"),
            "folders": ("path",),
            "labels": ("path", "labels"),
            "recordio": ("path",),
        }[self.source]
        require(self, f"source {self.source}", needed)
        if not self.labelled and (self.source != "folders" or self.validation.share):
            raise ValueError("labelled=false needs source=folders and validation.share=0")
        return self


class EmbeddingsSection(Section):
    """Embeddings of every image by every teacher.

    Attributes:
        batch_size: Images that a network sees at once.
        dtype: Of the stored array; float16 halves it and costs about 1e-4 of a cosine.
        precision: Arithmetic of the networks: `fp32`, or `bf16` by autocast, which is several
            times faster on processors and GPUs that have it.
    """

    batch_size: int = Field(default=256, ge=1)
    dtype: Literal["float16", "float32"] = "float32"
    precision: Literal["fp32", "bf16"] = "fp32"


class TargetsSection(Section):
    """The adaptor's output for every image and view."""

    batch_size: int = Field(default=4096, ge=1)


class TestSection(Section):
    """Faces and pairs that nothing was trained or chosen on, for `mstkd-train testset`.

    Attributes:
        source: `rendered`: identities of their own. `pairs`: a list of pairs of image files,
            that is RFW's folder, LFW's `pairs.txt`, or a CSV file. `bin`: InsightFace's
            verification files. `held_out`: the identities that the data holds out of training;
            mind that the best checkpoint was chosen on them.
        path: The list of pairs, or RFW's folder.
        files: The verification file of each group.
        identities_per_group: Rendered identities of each group.
        images_per_identity: Rendered images of each identity.
        genuine_per_group: Genuine pairs of each group, the most where `held_out`.
        impostor_per_group: Impostor pairs of each group, the most where `held_out`.
    """

    __test__ = False  # not a pytest class

    source: Literal["rendered", "pairs", "bin", "held_out"] = "rendered"
    path: Path | None = None
    files: dict[str, Path] | None = Field(default=None, min_length=1)
    identities_per_group: int | None = Field(default=None, ge=2)
    images_per_identity: int | None = Field(default=None, ge=2)
    genuine_per_group: int | None = Field(default=None, ge=1)
    impostor_per_group: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        counts = ("genuine_per_group", "impostor_per_group")
        needed = {
            "rendered": ("identities_per_group", "images_per_identity", *counts),
            "pairs": ("path",),
            "bin": ("files",),
            "held_out": counts,
        }[self.source]
        require(self, f"source {self.source}", needed)
        return self


def require(section: Section, what: str, names: tuple[str, ...]) -> None:
    """Raise ValueError where one of the fields is None."""
    missing = [name for name in names if getattr(section, name) is None]
    if missing:
        raise ValueError(f"{what} needs {' and '.join(missing)}")
