"""Validation of a stage's network on the identities that the data holds out of training."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mstkd_training.artifact import Artifact
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.pairs import Pairs
from mstkd_training.data.split import validation_pairs
from mstkd_training.embedding import embed, face_batch
from mstkd_training.loop.validation import pair_figures
from mstkd_training.recipe import ValidationSection
from mstkd_training.stages.run import StageRun, derive_seed

Validate = Callable[[], dict[str, float]]


def validate_vectors(
    run: StageRun,
    data: Artifact,
    faces: FaceSet,
    embed_rows: Callable[[NDArray[np.int64]], Tensor],
    group: str | None = None,
) -> Validate | None:
    """Return what measures an embedding on the held-out identities; None where there are none.

    The pairs are the same in every stage of a pipeline.

    Args:
        run: The stage, for the recipe's seed.
        data: A data artifact.
        faces: Its faces.
        embed_rows: From rows of the faces, int64 `(B,)`, to unit embeddings `(B, dim)`.
        group: Only the pairs of this group.
    """
    if not faces.validation_rows(group).size:
        return None
    section = ValidationSection.model_validate(data.manifest.recipe.get("validation", {}))
    pairs = validation_pairs(
        faces,
        section.genuine_per_group,
        section.impostor_per_group,
        derive_seed(run.recipe_seed, "validation"),
    )
    if group is not None:
        mine = pairs.groups == faces.group_names.index(group)
        pairs = Pairs(
            pairs.first[mine], pairs.second[mine], pairs.genuine[mine], pairs.groups[mine]
        )
    return lambda: pair_figures(pairs, faces.group_names, embed_rows)


def validate_faces(
    run: StageRun, data: Artifact, faces: FaceSet, backbone: nn.Module, group: str | None = None
) -> Validate | None:
    """Return what measures a backbone on held-out faces, unflipped; see `validate_vectors`."""
    return validate_vectors(run, data, faces, _embedder(run, faces, backbone), group)


def watch_faces(run: StageRun, backbone: nn.Module) -> Validate | None:
    """Return what measures a backbone on the pairs that the user wants to watch, if any."""
    watched = run.watched
    if watched is None:
        return None
    embed_rows = _embedder(run, watched.faces, backbone)
    return lambda: pair_figures(watched.pairs, watched.faces.group_names, embed_rows)


def _embedder(
    run: StageRun, faces: FaceSet, backbone: nn.Module
) -> Callable[[NDArray[np.int64]], Tensor]:
    def embed_rows(rows: NDArray[np.int64]) -> Tensor:
        indices = torch.from_numpy(rows)
        pixels = face_batch(faces.images, indices, torch.zeros(len(rows), dtype=torch.bool))
        return embed(backbone, pixels.to(run.processes.device), run.preprocessing)

    return embed_rows
