"""Embeddings stage: every training image, in both views, seen by every teacher.

Its file is `embeddings.npy`, `(N, views, teachers, dim)`: view 0 is the face as it is, view 1
its mirror image, and every vector has unit length.
"""

from collections.abc import Sequence

import torch

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact, writing_artifact
from mstkd_training.embedding import VIEWS, embed, face_batch
from mstkd_training.manifest import TeacherRef
from mstkd_training.recipe import EmbeddingsSection
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.teacher import load_backbone


def make_embeddings(
    run: StageRun, data: Artifact, teachers: Sequence[Artifact], section: EmbeddingsSection
) -> Artifact:
    """Embed all training images.

    Args:
        run: The stage's name, seed and place.
        data: A data artifact.
        teachers: Teacher artifacts in the order of concatenation.
        section: Batch size and the stored dtype.

    Raises:
        DataError: The teachers' embeddings differ in length or in how pixels are normalised.
    """
    references = [reference_to(teacher) for teacher in teachers]
    dims = {reference.embedding_dim for reference in references}
    if len(dims) != 1:
        listed = ", ".join(f"{entry.name} {entry.embedding_dim}" for entry in references)
        raise DataError(f"{run.name}: the teachers' embeddings differ in length ({listed}).")
    for teacher in teachers:
        if teacher.manifest.preprocessing != run.preprocessing:
            raise DataError(
                f"{teacher.path}: trained with another preprocessing than this recipe's. "
                "Train it again, or correct the recipe's preprocessing."
            )
    images = read_faces(data).images
    count, dim = len(images), dims.pop()
    with writing_artifact(run.target) as draft:
        array = draft.open_array("embeddings", (count, VIEWS, len(teachers), dim), section.dtype)
        with run.reporter.bar(run.name, count * VIEWS * len(teachers)) as bar:
            for place, teacher in enumerate(teachers):
                backbone = load_backbone(teacher)
                for view in range(VIEWS):
                    for start in range(0, count, section.batch_size):
                        indices = torch.arange(start, min(start + section.batch_size, count))
                        flipped = torch.full((len(indices),), view == 1)
                        faces = face_batch(images, indices, flipped)
                        array[indices.numpy(), view, place] = embed(
                            backbone, faces, run.preprocessing
                        ).numpy()
                        bar.advance(len(indices))
        array.flush()  # type: ignore[attr-defined]
        del array
        draft.finish(
            **run.manifest(),
            groups=data.manifest.groups,
            preprocessing=run.preprocessing,
            embedding_dim=dim,
            teachers=references,
        )
    return Artifact.open(run.target, "embeddings")


def reference_to(teacher: Artifact) -> TeacherRef:
    """Return how a manifest refers to a teacher.

    Raises:
        DataError: The artifact is no teacher.
    """
    manifest = teacher.manifest
    if manifest.kind != "teacher" or manifest.embedding_dim is None:
        raise DataError(f"{teacher.path}: holds a {manifest.kind} artifact, needed is teacher.")
    return TeacherRef(
        name=manifest.name,
        group=",".join(manifest.groups),
        id=manifest.id,
        embedding_dim=manifest.embedding_dim,
    )
