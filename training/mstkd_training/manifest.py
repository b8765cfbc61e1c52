"""What an artifact says about itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import DataError

MANIFEST_FILE: Final = "manifest.json"

Kind = Literal["data", "teacher", "embeddings", "adaptor", "targets", "student"]


class TeacherRef(BaseModel):
    """One teacher in the order that embeddings are concatenated in.

    Attributes:
        name: Name of the teacher's artifact, such as `teacher_asian`.
        group: The group that it was trained on.
        id: Id of the teacher's artifact.
        embedding_dim: Length of its embeddings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    group: str
    id: str
    embedding_dim: int = Field(ge=1)


class Manifest(BaseModel):
    """The contents of an artifact's `manifest.json`.

    Attributes:
        format: Version of this file's layout.
        id: First 16 hex digits of a hash over everything else here, the files' hashes included.
        kind: Which stage made the artifact.
        name: The artifact's name, also the name of its folder in a pipeline.
        fingerprint: Hash of what it was made from: inputs, recipe section, seed.
        inputs: Ids of the artifacts that it was made from, by name.
        recipe: The section of the recipe that it was made with.
        seed: Seed of the stage's random numbers.
        versions: Versions of the software that made it.
        metrics: What was measured while making it.
        groups: Groups of the data behind it, in the data's order.
        preprocessing: How its network sees faces; None where there is no network.
        backbone: Name of the backbone or adaptor architecture; None where there are no weights.
        embedding_dim: Length of the embeddings that it holds or makes.
        teachers: The teachers in the order of concatenation (embeddings, adaptor).
        embedding_space: Name of the space of its embeddings.
        files: SHA-256 of each file in the folder, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    id: str = ""
    kind: Kind
    name: str
    fingerprint: str
    inputs: dict[str, str]
    recipe: dict[str, Any]
    seed: int
    versions: dict[str, str]
    metrics: dict[str, float] = {}
    groups: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    backbone: str | None = None
    embedding_dim: int | None = None
    teachers: tuple[TeacherRef, ...] = ()
    embedding_space: str | None = None
    files: dict[str, str]

    @model_validator(mode="after")
    def _check_id(self) -> Self:
        expected = digest_of(self.model_dump(mode="json", exclude={"id"}))
        if not self.id:
            object.__setattr__(self, "id", expected)
        elif self.id != expected:
            raise ValueError(f"id {self.id} does not belong to its values (hash {expected})")
        return self

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True)
        (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `manifest.json` from `folder`.

        Raises:
            DataError: It is missing, malformed, or was edited.
        """
        path = folder / MANIFEST_FILE
        remedy = f"Remove {folder} and run the pipeline again."
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                f"{folder}: no {MANIFEST_FILE}, so this is not an artifact. Give the folder of "
                "one, or make it with mstkd-train pipeline."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}). {remedy}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise DataError(
                f"{path}: malformed ({field + ': ' if field else ''}{problem['msg']}). {remedy}"
            ) from error


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of `values`."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
