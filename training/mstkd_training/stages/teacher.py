"""Teacher stage: a specialist for one group, trained with a margin head on its identities."""

import numpy as np
import torch
from torch import Tensor, nn

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact, weights_digest, writing_artifact
from mstkd_training.backbones import build_backbone
from mstkd_training.embedding import face_batch, network_input
from mstkd_training.heads import build_head
from mstkd_training.recipe import TeacherSection
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.run import StageRun
from mstkd_training.trainer import StepResult, classified


def teacher_name(group: str) -> str:
    """Return the name of a group's teacher, such as `teacher_african`."""
    return f"teacher_{group.lower()}"


def train_teacher(run: StageRun, data: Artifact, section: TeacherSection, group: str) -> Artifact:
    """Train one teacher on one group of the data.

    Args:
        run: The stage's name, seed and place.
        data: A data artifact.
        section: Backbone, head and optimiser.
        group: Which group's identities it sees.

    Returns:
        A teacher artifact; its weights are the backbone's.

    Raises:
        DataError: The data holds no such group.
    """
    faces = read_faces(data)
    if group not in faces.group_names:
        raise DataError(
            f"{data.path}: holds no group {group!r}; it has {', '.join(faces.group_names)}."
        )
    rows = np.flatnonzero(faces.groups == faces.group_names.index(group))
    labels = torch.from_numpy(np.unique(faces.identities[rows], return_inverse=True)[1])
    images, row_numbers = faces.images, torch.from_numpy(rows)

    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        backbone = build_backbone(section.backbone.name, section.backbone.embedding_dim)
        head = build_head(section.head, section.backbone.embedding_dim, int(labels.max()) + 1)
    backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(indices: Tensor, flipped: Tensor) -> StepResult:
        pixels = face_batch(images, row_numbers[indices], flipped)
        logits = head(backbone(network_input(pixels, run.preprocessing)), labels[indices])
        return classified(logits, labels[indices])

    metrics = run.fit(
        nn.ModuleDict({"backbone": backbone, "head": head}),
        step,
        samples=len(rows),
        section=section.optimiser,
    )
    state = backbone.state_dict()
    with writing_artifact(run.target) as draft:
        draft.save_weights(state)
        draft.finish(
            **run.manifest(),
            metrics=metrics,
            groups=(group,),
            preprocessing=run.preprocessing,
            backbone=section.backbone.name,
            embedding_dim=section.backbone.embedding_dim,
            embedding_space=f"weights-{weights_digest(state)}",
        )
    run.checkpoint.remove()
    return Artifact.open(run.target, "teacher")


def load_backbone(artifact: Artifact) -> nn.Module:
    """Return the backbone of a teacher or student artifact, in evaluation mode.

    Raises:
        DataError: The artifact holds no backbone, or weights of another one.
    """
    manifest = artifact.manifest
    if manifest.kind not in ("teacher", "student") or not (
        manifest.backbone and manifest.embedding_dim
    ):
        raise DataError(f"{artifact.path}: a {manifest.kind} artifact holds no backbone.")
    backbone = build_backbone(manifest.backbone, manifest.embedding_dim)
    try:
        backbone.load_state_dict(artifact.weights())
    except RuntimeError as error:
        raise DataError(
            f"{artifact.path}: its weights do not fit a {manifest.backbone} of "
            f"{manifest.embedding_dim} dimensions. Train it again."
        ) from error
    return backbone.eval()
