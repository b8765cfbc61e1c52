"""Embeddings stage: every training image, in both views, seen by every teacher.

Its file is `embeddings.npy`, `(N, views, dims)`: view 0 is the face as it is, view 1 its mirror
image. The last axis holds the teachers' embeddings one after the other, in the order of the
manifest's `teachers`, each of its own length and of unit norm.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact, writing_artifact
from mstkd_training.block_store import BlockStore
from mstkd_training.data.images import Images
from mstkd_training.embedding import VIEWS, embed, inference_copy
from mstkd_training.manifest import TeacherRef
from mstkd_training.recipe import EmbeddingsSection
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.teacher import load_backbone

CPU = torch.device("cpu")


def make_embeddings(
    run: StageRun,
    data: Artifact,
    teachers: Sequence[Artifact],
    section: EmbeddingsSection,
    device: torch.device = CPU,
) -> Artifact:
    """Embed all images of the data, those that are held out for validation included.

    After every batch the embeddings so far are on disk; a run that was killed goes on behind
    them and ends with the same bytes as one that was not.

    Args:
        run: The stage's name, seed and place.
        data: A data artifact.
        teachers: Teacher artifacts in the order of concatenation.
        section: Batch size, arithmetic and the stored dtype.
        device: Where the networks run.

    Raises:
        DataError: A teacher saw pixels that were normalised otherwise.
    """
    references = [reference_to(teacher) for teacher in teachers]
    for teacher in teachers:
        if teacher.manifest.preprocessing != run.preprocessing:
            raise DataError(
                f"{teacher.path}: trained with another preprocessing than this recipe's. "
                "Train it again, or correct the recipe's preprocessing."
            )
    images = read_faces(data).images
    dim = sum(reference.embedding_dim for reference in references)
    store = BlockStore.open(
        run.folder / f".{run.name}.partial",
        run.fingerprint,
        (len(images), VIEWS, dim),
        section.dtype,
    )
    if store.done:
        run.reporter.message(f"{run.name}: goes on after image {store.done} of {len(images)}")
    backbones = [
        inference_copy(load_backbone(teacher), device, section.precision) for teacher in teachers
    ]
    with run.reporter.bar(run.name, len(images), store.done) as bar:
        for faces in read_ahead(images, store.done, section.batch_size):
            pixels = torch.from_numpy(faces).to(device)
            views = [
                torch.cat(
                    [embed(backbone, view, run.preprocessing) for backbone in backbones],
                    1,
                )
                for view in (pixels, pixels.flip(2))
            ]
            store.write(torch.stack(views, 1).cpu().numpy())
            bar.advance(len(faces))
    with writing_artifact(run.target) as draft:
        store.take(draft.folder / "embeddings.npy")
        draft.finish(
            **run.manifest(),
            groups=data.manifest.groups,
            preprocessing=run.preprocessing,
            embedding_dim=dim,
            teachers=references,
        )
    return Artifact.open(run.target, "embeddings")


def read_ahead(images: Images, start: int, batch_size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield faces in batches, in order, reading the next batch while one is worked on.

    Args:
        images: uint8 `(N, 112, 112, 3)`.
        start: The first row.
        batch_size: Rows of a batch.
    """

    def read(begin: int) -> NDArray[np.uint8]:
        rows = np.arange(begin, min(begin + batch_size, len(images)))
        return np.ascontiguousarray(images[rows])

    begins = range(start, len(images), batch_size)
    with ThreadPoolExecutor(1, "read") as pool:
        waiting = [pool.submit(read, begin) for begin in begins[:1]]
        for begin in [*begins[1:], None]:
            faces = waiting.pop().result() if waiting else None
            if begin is not None:
                waiting.append(pool.submit(read, begin))
            if faces is not None:
                yield faces


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
        # A generalist is of no group; its own name then stands where a group's would.
        group=manifest.groups[0]
        if len(manifest.groups) == 1
        else manifest.name.removeprefix("teacher_"),
        id=manifest.id,
        embedding_dim=manifest.embedding_dim,
    )
