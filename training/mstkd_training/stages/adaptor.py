"""Adaptor stage: from the teachers' concatenated embeddings into one common space."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mstkd_serve.errors import DataError
from mstkd_training.adaptors import build_adaptor
from mstkd_training.artifact import Artifact, weights_digest
from mstkd_training.embedding import unit
from mstkd_training.heads import build_head
from mstkd_training.loop import StepResult, Task, classified
from mstkd_training.recipe import AdaptorSection
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.held_out import validate_vectors
from mstkd_training.stages.run import StageRun


def train_adaptor(
    run: StageRun, data: Artifact, embeddings: Artifact, section: AdaptorSection
) -> Artifact:
    """Train the adaptor with a margin head over all training identities of all groups.

    Both views of a face are training samples; which one is used is drawn anew in every epoch.

    Args:
        run: The stage's name, seed and place.
        data: A data artifact, for the identities.
        embeddings: An embeddings artifact made from it.
        section: Architecture, head and optimiser.

    Returns:
        An adaptor artifact. Its manifest holds the order of the teachers, and the name of the
        common space, a hash of the weights.

    Raises:
        DataError: The embeddings were made from other data.
    """
    if embeddings.manifest.inputs.get(data.manifest.name) != data.manifest.id:
        raise DataError(f"{embeddings.path}: made from other data than {data.path}.")
    faces = read_faces(data)
    rows = faces.training_rows()
    labels, row_numbers = torch.from_numpy(faces.class_labels(rows)), torch.from_numpy(rows)
    vectors = embeddings.array("embeddings")
    in_dim = vectors.shape[2]
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        adaptor = build_adaptor(section.name, in_dim, section.embedding_dim)
        head = build_head(section.head, section.embedding_dim, int(labels.max()) + 1)

    def joined(places: NDArray[np.int64], views: NDArray[np.int64] | int) -> Tensor:
        chosen = vectors[places, views]
        return torch.from_numpy(chosen.reshape(len(places), in_dim)).float()

    def load(indices: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
        views = flipped.numpy().astype(np.int64)
        return joined(row_numbers[indices].numpy(), views), labels[indices]

    def step(inputs: Tensor, wanted: Tensor) -> StepResult:
        return classified(head(adaptor(inputs), wanted), wanted)

    @torch.inference_mode()
    def embed_rows(places: NDArray[np.int64]) -> Tensor:
        return unit(adaptor(joined(places, 0).to(run.processes.device)))

    task = Task(
        run.name,
        module=nn.ModuleDict({"adaptor": adaptor, "head": head}),
        result=adaptor,
        samples=len(rows),
        load=load,
        step=step,
        validate=validate_vectors(run, data, faces, embed_rows),
    )
    metrics = run.fit(task, section.optimiser, section.selection)
    state = adaptor.state_dict()
    return run.keep(
        state,
        metrics=metrics,
        groups=data.manifest.groups,
        backbone=section.name,
        embedding_dim=section.embedding_dim,
        teachers=embeddings.manifest.teachers,
        embedding_space=f"adaptor-{weights_digest(state)}",
    )


def load_adaptor(artifact: Artifact) -> nn.Module:
    """Return the adaptor of an adaptor artifact, in evaluation mode.

    Raises:
        DataError: The artifact holds no adaptor, or weights of another one.
    """
    manifest = artifact.manifest
    if manifest.kind != "adaptor" or not (manifest.backbone and manifest.embedding_dim):
        raise DataError(f"{artifact.path}: a {manifest.kind} artifact holds no adaptor.")
    in_dim = sum(teacher.embedding_dim for teacher in manifest.teachers)
    adaptor = build_adaptor(manifest.backbone, in_dim, manifest.embedding_dim)
    try:
        adaptor.load_state_dict(artifact.weights())
    except RuntimeError as error:
        raise DataError(
            f"{artifact.path}: its weights do not fit an adaptor from {in_dim} to "
            f"{manifest.embedding_dim} dimensions. Train it again."
        ) from error
    return adaptor.eval()
