"""Data stage: the training faces as one artifact.

Its files are `identities.npy` and `groups.npy`, int64 `(N,)`; `held_out.npy`, bool `(N,)`, the
rows of identities that are validated on and never trained on; and the images: rendered ones as
`images.npy`, uint8 `(N, 112, 112, 3)`, real ones as they were encoded, one after the other in
`images.bin`, with `offsets.npy`, int64 `(N + 1,)`. Beside real ones stand `identities.csv`, who
each number is, and `unreadable.csv`, the images that were skipped. The groups' names are in the
manifest.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mstkd_training.artifact import Artifact, writing_artifact
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.images import Images
from mstkd_training.data.ingest import Ingested, identity_rows, ingest
from mstkd_training.data.packed import PackedImages
from mstkd_training.data.rendered import render_faceset
from mstkd_training.data.sources.folders import FolderSource
from mstkd_training.data.sources.labels import LabelSource
from mstkd_training.data.sources.recordio import RecordSource
from mstkd_training.data.sources.sample import Source
from mstkd_training.data.split import hold_out
from mstkd_training.recipe import DataSection
from mstkd_training.stages.run import StageRun

PACKED_FILE: Final = "images.bin"
UNREADABLE_FILE: Final = "unreadable.csv"


def make_data(run: StageRun, section: DataSection) -> Artifact:
    """Render the training faces, or copy real ones, and split off those to validate on.

    Args:
        run: The stage's name, seed and place.
        section: Source, groups and the share to hold out.

    Raises:
        DataError: The source is missing or malformed, has images of another size, or a group has
            too few faces.
    """
    with writing_artifact(run.target) as draft:
        metrics: dict[str, float] = {}
        if section.source == "rendered":
            faces = _render(run, section)
            draft.save_array("images", faces.images[:])
            held_out = _held_out(faces, section, run.seed)
        else:
            packed = draft.folder / PACKED_FILE
            read = _copy(run, section, packed)
            draft.save_array("offsets", read.offsets)
            faces = FaceSet(
                PackedImages.open(packed, read.offsets),
                read.identities,
                read.groups,
                section.groups,
            )
            held_out = _held_out(faces, section, run.seed)
            _write_rows(
                draft.folder / "identities.csv",
                ("number", "name", "group", "images", "held_out"),
                identity_rows(read, held_out),
            )
            _write_rows(draft.folder / UNREADABLE_FILE, ("image", "reason"), read.unreadable)
            metrics["images_unreadable"] = len(read.unreadable)
        draft.save_array("identities", faces.identities)
        draft.save_array("groups", faces.groups)
        draft.save_array("held_out", held_out)
        metrics |= {
            "images": len(faces),
            "identities": faces.identity_count,
            "identities_held_out": len(np.unique(faces.identities[held_out])),
        }
        draft.finish(**run.manifest(), groups=faces.group_names, metrics=metrics)
    if metrics.get("images_unreadable"):
        run.reporter.message(
            f"{run.name}: {metrics['images_unreadable']:.0f} images could not be read and were "
            f"skipped; {run.target / UNREADABLE_FILE} lists them"
        )
    return Artifact.open(run.target, "data")


def read_faces(data: Artifact) -> FaceSet:
    """Return the faces of a data artifact; images are read, or decoded, when they are indexed."""
    images: Images
    if PACKED_FILE in data.manifest.files:
        images = PackedImages.open(data.file(PACKED_FILE), np.asarray(data.array("offsets")))
    else:
        images = data.array("images")
    return FaceSet(
        images=images,
        identities=np.asarray(data.array("identities")),
        groups=np.asarray(data.array("groups")),
        group_names=data.manifest.groups,
        held_out=np.asarray(data.array("held_out")),
        labelled=bool(data.manifest.recipe.get("labelled", True)),
    )


def open_source(section: DataSection) -> Source:
    """Return the images of a section whose source is not `rendered`.

    Raises:
        DataError: The source is missing or malformed.
    """
    path, columns = section.path, section.columns
    if path is None:
        raise ValueError(f"source {section.source} names no folder")
    labels = None if section.labels is None else path / section.labels
    if section.source == "labels" and labels is not None:
        return LabelSource(
            path,
            labels,
            section.groups,
            file=columns.file,
            identity=columns.identity,
            group=columns.group,
        )
    if section.source == "recordio":
        return RecordSource(
            path,
            section.groups,
            labels,
            identity=columns.identity,
            group=columns.group,
        )
    return FolderSource(path, section.groups, labelled=section.labelled)


def _render(run: StageRun, section: DataSection) -> FaceSet:
    people, pictures = section.identities_per_group or 0, section.images_per_identity or 0
    with run.reporter.bar(run.name, len(section.groups) * people * pictures) as bar:
        return render_faceset(
            group_names=section.groups,
            identities_per_group=people,
            images_per_identity=pictures,
            seed=run.seed,
            nuisance_strength=section.nuisance_strength,
            progress=bar.advance,
        )


def _copy(run: StageRun, section: DataSection, packed: Path) -> Ingested:
    source = open_source(section)
    with run.reporter.bar(run.name, len(source)) as bar:
        return ingest(
            source,
            section.groups,
            packed,
            exclude=section.exclude,
            resize=section.resize,
            progress=bar.advance,
        )


def _held_out(faces: FaceSet, section: DataSection, seed: int) -> NDArray[np.bool_]:
    share = section.validation.share
    return hold_out(faces.identities, faces.groups, faces.group_names, share, seed)


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
