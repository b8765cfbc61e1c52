"""Teacher stage: a specialist for one group, or a generalist for a part of all identities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact, weights_digest
from mstkd_training.backbones import build_backbone
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.split import generalist_parts
from mstkd_training.embedding import face_batch, network_input
from mstkd_training.heads import build_head
from mstkd_training.loop import StepResult, Task, classified
from mstkd_training.recipe import TeacherSection
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.held_out import validate_faces, watch_faces
from mstkd_training.stages.run import StageRun, derive_seed


@dataclass(frozen=True)
class TeacherPlan:
    """Which identities a teacher is trained on.

    Attributes:
        name: Name of its artifact.
        group: The group that it specialises in; None for a generalist.
        part: Its number among the teachers, from 0.
        parts: How many teachers there are.
    """

    name: str
    group: str | None
    part: int
    parts: int


def teacher_name(group: str) -> str:
    """Return the name of a group's specialised teacher, such as `teacher_african`."""
    return f"teacher_{group.lower()}"


def plan_teachers(section: TeacherSection, groups: Sequence[str]) -> list[TeacherPlan]:
    """Return the teachers in the order of concatenation, as many as groups.

    Generalists are named by their number, from `teacher_generalist1` on.
    """
    special = section.kind == "specialised"
    return [
        TeacherPlan(
            name=teacher_name(group) if special else f"teacher_generalist{part + 1}",
            group=group if special else None,
            part=part,
            parts=len(groups),
        )
        for part, group in enumerate(groups)
    ]


def train_teacher(
    run: StageRun, data: Artifact, section: TeacherSection, plan: TeacherPlan
) -> Artifact:
    """Train one teacher on its part of the data.

    Args:
        run: The stage's name, seed and place.
        data: A data artifact.
        section: Backbone, head and optimiser.
        plan: Which identities it sees.

    Returns:
        A teacher artifact; its weights are the backbone's.

    Raises:
        DataError: The data holds no such group, or too few identities for so many generalists.
    """
    faces = read_faces(data)
    rows = _rows_of(plan, faces, derive_seed(run.recipe_seed, "generalists"))
    labels, row_numbers = torch.from_numpy(faces.class_labels(rows)), torch.from_numpy(rows)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        backbone = build_backbone(section.backbone.name, section.backbone.embedding_dim)
        head = build_head(section.head, section.backbone.embedding_dim, int(labels.max()) + 1)
    backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load(indices: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
        return face_batch(faces.images, row_numbers[indices], flipped), labels[indices]

    def step(pixels: Tensor, wanted: Tensor) -> StepResult:
        embeddings = backbone(network_input(pixels, run.preprocessing))
        return classified(head(embeddings, wanted), wanted)

    task = Task(
        run.name,
        module=nn.ModuleDict({"backbone": backbone, "head": head}),
        result=backbone,
        samples=len(rows),
        load=load,
        step=step,
        validate=validate_faces(run, data, faces, backbone, plan.group),
        watch=watch_faces(run, backbone),
    )
    metrics = run.fit(task, section.optimiser, section.selection)
    state = backbone.state_dict()
    return run.keep(
        state,
        metrics=metrics,
        groups=data.manifest.groups if plan.group is None else (plan.group,),
        backbone=section.backbone.name,
        embedding_dim=section.backbone.embedding_dim,
        embedding_space=f"weights-{weights_digest(state)}",
    )


def _rows_of(plan: TeacherPlan, faces: FaceSet, seed: int) -> NDArray[np.int64]:
    if plan.group is not None:
        return faces.training_rows(plan.group)
    return generalist_parts(faces, faces.training_rows(), plan.parts, seed)[plan.part]


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
