"""Published weights become artifacts like those that the stages leave."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import DataError
from mstkd_training.adaptors import ADAPTORS, build_adaptor
from mstkd_training.artifact import Artifact, weights_digest, writing_artifact
from mstkd_training.backbones import build_backbone
from mstkd_training.backbones.iresnet import IRESNETS
from mstkd_training.manifest import MANIFEST_FILE, Manifest, digest_of
from mstkd_training.published import Fitted, fit_to, looks_like, read_published
from mstkd_training.stages.embeddings import reference_to
from mstkd_training.stages.teacher import teacher_name

PublishedFormat = Literal["mst-kd", "elasticface", "arcface-torch"]
Role = Literal["teacher", "student", "adaptor"]

PUBLISHED_ORDER: Final = ("Asian", "African", "Caucasian", "Indian")
"""The order in which MST-KD's adaptors take their teachers; no file of theirs says it."""


@dataclass(frozen=True)
class Imported:
    """An artifact from a published file.

    Attributes:
        artifact: The new artifact.
        missing: Entries that the file lacked and that need no value from it.
        left_over: Entries of the file that were not used.
    """

    artifact: Artifact
    missing: tuple[str, ...]
    left_over: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A published file and what it is.

    Attributes:
        file: The checkpoint.
        format: Whose it is. All three publishers see faces as RGB, (x - 127.5) / 127.5, and name
            an IResNet's weights alike; only MST-KD has adaptors.
        network: One of `IRESNETS`, or of `ADAPTORS` for an adaptor.
    """

    file: Path
    format: PublishedFormat
    network: str


def import_backbone(
    source: Source,
    folder: Path,
    *,
    role: Literal["teacher", "student"],
    group: str | None = None,
    name: str | None = None,
    adaptor: Path | None = None,
) -> Imported:
    """Make a teacher or a student from a published backbone.

    Args:
        source: The file.
        folder: Where artifacts go; this one goes to `folder / name`.
        role: What it becomes.
        group: The group that a teacher was trained on; needed for a teacher.
        name: Name of the artifact; by default `teacher_<group>` or `student`.
        adaptor: For a student of MST-KD: the adaptor whose output it was trained to give. The
            student then has its embedding space; without, it has one of its own.

    Raises:
        DataError: The file, the group, the adaptor or the place cannot be used.
    """
    _require_network(source, IRESNETS)
    if role == "teacher" and not group:
        raise DataError(f"{source.file}: a teacher needs its group, such as --group African.")
    if role == "student" and group:
        raise DataError(f"{source.file}: a student has no --group; it is for all of them.")
    if adaptor is not None and (role, source.format) != ("student", "mst-kd"):
        raise DataError(f"{source.file}: only a student of MST-KD belongs to an adaptor.")
    state = read_published(source.file)
    dim = _length(state, "fc.weight", source.file)
    with torch.device("meta"):
        network = build_backbone(source.network, dim)
    fitted = fit_to(network, state, source.file)
    fields: dict[str, Any] = {
        "groups": (group,) if group else (),
        "preprocessing": Preprocessing(),
        "embedding_space": f"weights-{weights_digest(fitted.state)}",
    }
    if adaptor is not None:
        manifest = Artifact.open(adaptor, "adaptor").manifest
        if manifest.embedding_dim != dim or manifest.preprocessing != Preprocessing():
            raise DataError(
                f"{source.file}: gives {dim}-d embeddings of faces as (x - 127.5) / 127.5, but "
                f"{adaptor} does not. Give the adaptor that taught this student."
            )
        fields |= {
            "groups": manifest.groups,
            "teachers": manifest.teachers,
            "inputs": {manifest.name: manifest.id},
            "embedding_space": manifest.embedding_space,
        }
    name = name or (teacher_name(group) if group else "student")
    return _write(source, _place(folder, name), role, fitted, dim, fields)


def import_adaptor(
    source: Source, folder: Path, *, teachers: Sequence[Path] = (), name: str | None = None
) -> Imported:
    """Make an adaptor from a published one.

    Its teachers have to be there, because it means something only for these, in this order. The
    published order of the four groups of MST-KD is enforced; for other groups the given one is
    taken.

    Args:
        source: The file.
        folder: Where artifacts go; this one goes to `folder / name`.
        teachers: Teacher folders in the adaptor's order; by default those in `folder` of the
            groups of `PUBLISHED_ORDER`.
        name: Name of the artifact, by default `adaptor`.

    Raises:
        DataError: The file, the teachers, their order or the place cannot be used.
    """
    if source.format != "mst-kd":
        raise DataError(f"{source.file}: {source.format} has no adaptors; mst-kd has.")
    _require_network(source, ADAPTORS)
    folders = list(teachers) or [folder / teacher_name(group) for group in PUBLISHED_ORDER]
    opened = [Artifact.open(teacher, "teacher") for teacher in folders]
    references = tuple(reference_to(teacher) for teacher in opened)
    _require_order(source.file, [reference.group for reference in references])
    seen = {teacher.manifest.preprocessing for teacher in opened}
    if seen != {Preprocessing()}:
        raise DataError(
            f"{source.file}: MST-KD's teachers see faces as (x - 127.5) / 127.5; some of "
            f"{', '.join(map(str, folders))} do not. Give the teachers that were imported."
        )
    state = read_published(source.file)
    last = "fc.weight" if source.network == "sl" else "fc2.weight"
    dim = _length(state, last, source.file)
    in_dim = sum(reference.embedding_dim for reference in references)
    with torch.device("meta"):
        network = build_adaptor(source.network, in_dim, dim)
    fitted = fit_to(network, state, source.file)
    # The space is that of this adaptor on these teachers: their weights are part of its name.
    space = {
        "adaptor": weights_digest(fitted.state),
        "teachers": [teacher.manifest.embedding_space for teacher in opened],
    }
    fields = {
        "groups": tuple(reference.group for reference in references),
        "preprocessing": Preprocessing(),
        "teachers": references,
        "inputs": {reference.name: reference.id for reference in references},
        "embedding_space": f"adaptor-{digest_of(space)}",
    }
    return _write(source, _place(folder, name or "adaptor"), "adaptor", fitted, dim, fields)


def _place(folder: Path, name: str) -> Path:
    if Path(name).name != name or name.startswith("."):
        raise DataError(f"{name!r} cannot be the name of a folder. Choose another --name.")
    return folder / name


def _write(
    source: Source, target: Path, role: Role, fitted: Fitted, dim: int, fields: dict[str, Any]
) -> Imported:
    with source.file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    recipe = {
        "imported": source.file.name,
        "sha256": digest,
        "format": source.format,
        "network": source.network,
    }
    inputs = fields.pop("inputs", {})
    fingerprint = digest_of({**recipe, "role": role, "inputs": inputs, "name": target.name})
    if (target / MANIFEST_FILE).is_file() and Manifest.load(target).fingerprint != fingerprint:
        raise DataError(
            f"{target}: holds another artifact already. Choose another --name or --out, or "
            "remove it."
        )
    with writing_artifact(target) as draft:
        draft.save_weights(fitted.state)
        draft.finish(
            kind=role,
            name=target.name,
            fingerprint=fingerprint,
            inputs=inputs,
            recipe=recipe,
            seed=0,
            backbone=source.network,
            embedding_dim=dim,
            **fields,
        )
    return Imported(Artifact.open(target, role), fitted.missing, fitted.left_over)


def _require_network(source: Source, known: Sequence[str]) -> None:
    if source.network not in known:
        raise DataError(
            f"{source.file}: network {source.network!r} does not go with this role. Use one of "
            f"{', '.join(known)}."
        )


def _require_order(file: Path, groups: Sequence[str]) -> None:
    given = [group.lower() for group in groups]
    wanted = [group.lower() for group in PUBLISHED_ORDER]
    if sorted(given) == sorted(wanted) and given != wanted:
        raise DataError(
            f"{file}: MST-KD's adaptors take their teachers in the order "
            f"{', '.join(PUBLISHED_ORDER)}. Given were {', '.join(groups)}."
        )


def _length(state: dict[str, Tensor], key: str, file: Path) -> int:
    """Return how many outputs the layer `key` has."""
    if key not in state or state[key].ndim != 2:
        raise DataError(
            f"{file}: has no matrix {key}, whose shape tells the length of an embedding. It is "
            f"not the checkpoint of this network.{looks_like(state)}"
        )
    return int(state[key].shape[0])
