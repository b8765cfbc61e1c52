"""Student stage: one network that regresses the adaptor's targets (a-KD, EAF-KD)."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact
from mstkd_training.backbones import build_backbone
from mstkd_training.data.images import Images
from mstkd_training.embedding import face_batch, network_input, unit
from mstkd_training.heads import build_head
from mstkd_training.loop import StepResult, Task
from mstkd_training.recipe import StudentSection
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.held_out import validate_faces, watch_faces
from mstkd_training.stages.run import StageRun


def distillation_loss(outputs: Tensor, targets: Tensor, weight: float = 10_000.0) -> Tensor:
    """Return the a-KD loss of MST-KD.

    It is `weight` times the squared error between unit vectors, averaged over batch and
    dimensions, which equals `2 weight / dim * (1 - cosine)`: 39.06 * (1 - cosine) at 512.

    Args:
        outputs: The student's embeddings, `(N, dim)`, of any length.
        targets: Unit vectors, `(N, dim)`.
        weight: Factor on the mean.

    Returns:
        A scalar.
    """
    return weight * functional.mse_loss(unit(outputs), targets)


def matching_batch(
    images: Images, targets: NDArray[np.float32], indices: Tensor, flipped: Tensor
) -> tuple[Tensor, Tensor]:
    """Read faces together with the targets of the same view.

    Args:
        images: uint8 `(N, 112, 112, 3)`.
        targets: float32 `(N, views, dim)`; view 1 belongs to the mirrored face.
        indices: int64 `(B,)`.
        flipped: bool `(B,)`, which faces to mirror.

    Returns:
        uint8 `(B, 112, 112, 3)` and float32 `(B, dim)`.
    """
    views = flipped.numpy().astype(np.int64)
    chosen = torch.from_numpy(np.asarray(targets[indices.numpy(), views]))
    return face_batch(images, indices, flipped), chosen


def train_student(
    run: StageRun, data: Artifact, targets: Artifact, section: StudentSection
) -> Artifact:
    """Train the student from fresh weights on all groups, without labels if the loss is a-KD.

    Args:
        run: The stage's name, seed and place.
        data: A data artifact.
        targets: Targets made from the same data, in both views.
        section: Backbone, loss and optimiser.

    Returns:
        A student artifact; its weights are the backbone's. It shares the adaptor's embedding
        space, which is what it was trained for.

    Raises:
        DataError: The targets do not belong to these images.
    """
    faces = read_faces(data)
    vectors = targets.array("targets")
    if len(vectors) != len(faces) or targets.manifest.embedding_dim is None:
        raise DataError(
            f"{targets.path}: {len(vectors)} targets for the {len(faces)} images of "
            f"{data.path}. Run the pipeline again."
        )
    dim = targets.manifest.embedding_dim
    rows = faces.training_rows()
    row_numbers = torch.from_numpy(rows)
    labels: Tensor | None = None
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        backbone = build_backbone(section.backbone, dim)
        parts = {"backbone": backbone}
        if section.head is not None:
            labels = torch.from_numpy(faces.class_labels(rows))
            parts["head"] = build_head(section.head, dim, int(labels.max()) + 1)
    backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load(indices: Tensor, flipped: Tensor) -> tuple[Tensor, ...]:
        batch = matching_batch(faces.images, vectors, row_numbers[indices], flipped)
        return batch if labels is None else (*batch, labels[indices])

    task = Task(
        run.name,
        module=nn.ModuleDict(parts),
        result=backbone,
        samples=len(rows),
        load=load,
        step=student_step(parts, run.preprocessing, section),
        validate=validate_faces(run, data, faces, backbone),
        watch=watch_faces(run, backbone),
    )
    metrics = run.fit(task, section.optimiser, section.selection)
    return run.keep(
        backbone.state_dict(),
        metrics=metrics,
        groups=data.manifest.groups,
        backbone=section.backbone,
        embedding_dim=dim,
        teachers=targets.manifest.teachers,
        embedding_space=targets.manifest.embedding_space,
    )


def student_step(
    parts: dict[str, nn.Module], preprocessing: Preprocessing, section: StudentSection
) -> Callable[..., StepResult]:
    """Return the computation of one batch's loss, from uint8 faces, targets and labels."""

    def step(pixels: Tensor, wanted: Tensor, labels: Tensor | None = None) -> StepResult:
        outputs = parts["backbone"](network_input(pixels, preprocessing)).float()
        loss = distillation_loss(outputs, wanted, section.distillation_weight)
        distance = 1.0 - (unit(outputs.detach()) * wanted).sum(1).mean()
        shown = {"1-cos": distance}
        if labels is not None:
            margin_loss = functional.cross_entropy(parts["head"](outputs, labels), labels)
            shown |= {"distillation": loss, "margin": margin_loss}
            loss = loss + margin_loss
        return StepResult(loss, shown)

    return step
