"""The networks that can be exported: a backbone, or the teachers and their adaptor as one."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mstkd_serve.errors import DataError
from mstkd_serve.graph import AGREEMENT_NAME
from mstkd_training.artifact import Artifact
from mstkd_training.embedding import unit
from mstkd_training.stages.adaptor import load_adaptor
from mstkd_training.stages.embeddings import reference_to
from mstkd_training.stages.teacher import load_backbone

INPUT_NAME = "input"
OUTPUT_NAME = "embedding"
_OPSET = 17


class TeacherProjection(nn.Module):
    """All teachers side by side, each scaled to unit length, and the adaptor on top.

    Args:
        teachers: Backbones in the adaptor's order.
        adaptor: From the concatenated embeddings to the common space.
    """

    def __init__(self, teachers: Sequence[nn.Module], adaptor: nn.Module) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self.adaptor = adaptor

    def forward(self, pixels_nchw: Tensor) -> Tensor:
        """Map normalised faces `(N, 3, 112, 112)` to `(N, embedding_dim)`, not normalised."""
        joined = torch.cat([unit(teacher(pixels_nchw)) for teacher in self.teachers], dim=1)
        return self.adaptor(joined)  # type: ignore[no-any-return]


class AdaptorAlone(nn.Module):
    """An adaptor that takes one input a teacher, and tells how far the teachers agree.

    Args:
        adaptor: From the concatenated unit embeddings to the common space.
        dims: Length of each teacher's embedding, in the adaptor's order.
    """

    def __init__(self, adaptor: nn.Module, dims: Sequence[int]) -> None:
        super().__init__()
        self.adaptor = adaptor
        masks = torch.zeros(len(dims), sum(dims))
        start = 0
        for row, dim in zip(masks, dims, strict=True):
            row[start : start + dim] = 1
            start += dim
        self.masks: Tensor
        self.register_buffer("masks", masks)

    def forward(self, *embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Map unit embeddings `(N, dim)`, one a teacher, to the joint one and the agreement.

        Returns:
            Unit embeddings `(N, embedding_dim)`, and `(N, 1)`, -1 to 1: the mean over teachers of
            the cosine between the joint embedding and the adaptor's output for this teacher
            alone, the others set to zero.
        """
        joined = torch.cat(embeddings, dim=1)
        embedding = unit(self.adaptor(joined))
        alone = [
            (unit(self.adaptor(joined * mask)) * embedding).sum(1) for mask in self.masks.unbind()
        ]
        return embedding, torch.stack(alone, dim=1).mean(dim=1, keepdim=True)


class UnitNorm(nn.Module):
    """A network whose output is scaled to unit length.

    Args:
        network: From `(N, 3, 112, 112)` to `(N, dim)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_nchw: Tensor) -> Tensor:
        """Map normalised faces to unit embeddings."""
        return unit(self.network(pixels_nchw))


def load_network(artifact: Artifact, teachers: Sequence[Path] = ()) -> nn.Module:
    """Build what an artifact stands for, in evaluation mode.

    Args:
        artifact: A teacher or student (its backbone), or an adaptor (teachers and adaptor).
        teachers: Teacher folders in the adaptor's order; by default the folders beside the
            adaptor that its manifest names.

    Raises:
        DataError: The artifact holds no network, or the teachers are not exactly those of the
            adaptor's manifest in its order.
    """
    manifest = artifact.manifest
    if manifest.kind != "adaptor":
        if teachers:
            raise DataError(f"{artifact.path}: a {manifest.kind} artifact takes no teachers.")
        return load_backbone(artifact)
    return TeacherProjection(
        [load_backbone(teacher) for teacher in open_teachers(artifact, teachers)],
        load_adaptor(artifact),
    ).eval()


def open_teachers(adaptor: Artifact, teachers: Sequence[Path] = ()) -> list[Artifact]:
    """Open the teachers of an adaptor, in its order.

    Args:
        adaptor: An adaptor artifact.
        teachers: Teacher folders in its order; by default the folders beside it that its manifest
            names.

    Raises:
        DataError: They are not exactly those of its manifest in its order.
    """
    manifest = adaptor.manifest
    folders = list(teachers) or [adaptor.path.parent / entry.name for entry in manifest.teachers]
    opened = [Artifact.open(folder, "teacher") for folder in folders]
    given = tuple(reference_to(teacher) for teacher in opened)
    if given != manifest.teachers:
        have = ", ".join(f"{entry.name} ({entry.id})" for entry in given)
        want = ", ".join(f"{entry.name} ({entry.id})" for entry in manifest.teachers)
        raise DataError(
            f"{adaptor.path}: the adaptor was trained on exactly these teachers in this order: "
            f"{want}. Given were: {have}. Give those, or train the adaptor again."
        )
    return opened


def write_onnx(network: nn.Module, path: Path) -> None:
    """Write a float ONNX file of opset 17: `input` `[N, 3, 112, 112]` to `embedding` `[N, dim]`.

    Uses the TorchScript exporter: it needs no further package and keeps a free batch axis. Its
    deprecation warnings concern torch's maintainers, not the user, and are not shown.

    Args:
        network: In evaluation mode.
        path: The file to write.
    """
    # Contiguous, as a checkpoint is: channels-last weights only matter while training.
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(2, 3, 112, 112)
    _export(network, (example,), path, [INPUT_NAME], [OUTPUT_NAME])


def write_adaptor_onnx(network: AdaptorAlone, path: Path, inputs: dict[str, int]) -> None:
    """Write an adaptor: one input `[N, dim]` a teacher; `embedding` and `agreement` out.

    Args:
        network: In evaluation mode.
        path: The file to write.
        inputs: Name and length of each teacher's embedding, in the adaptor's order.
    """
    example = tuple(torch.zeros(2, dim) for dim in inputs.values())
    _export(network, example, path, list(inputs), [OUTPUT_NAME, AGREEMENT_NAME])


def _export(
    network: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
) -> None:
    """Export with a free batch axis."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            example,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "N"} for name in (*inputs, *outputs)},
            opset_version=_OPSET,
            dynamo=False,
        )
