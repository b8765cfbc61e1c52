"""What is measured of an embedding on a seed's test faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from mstkd_serve.fairness import evaluate, make_scores
from mstkd_serve.files import atomic_path
from mstkd_training.artifact import Artifact
from mstkd_training.data.testset import TestSet
from mstkd_training.embedding import VIEWS, embed, inference_copy, unit
from mstkd_training.experiment.arms import Arm
from mstkd_training.manifest import digest_of
from mstkd_training.recipe import Recipe
from mstkd_training.stages.adaptor import load_adaptor
from mstkd_training.stages.teacher import load_backbone
from mstkd_training.test_pairs import test_set_of

METRICS: Final = ("accuracy", "std", "ser", "own_accuracy", "own_std")
"""The figures that are summarised over seeds."""

_BATCH: Final = 256
_CPU: Final = torch.device("cpu")
_REVISION: Final = 1
"""Raised when figures are measured in another way, so that old ones count as stale."""


class Figures(BaseModel):
    """Figures of one arm and seed, by `mstkd_serve.fairness`.

    Attributes:
        accuracy: Mean of the groups' accuracies at the one threshold that is best for it, percent.
        std: Standard deviation of those accuracies over groups (ddof 0), percentage points.
        ser: Largest error of a group over the smallest; None where a group has no error.
        own_accuracy: As `accuracy`, each group at its own best threshold.
        own_std: As `std`, likewise.
        groups: The groups' accuracies at the one threshold, percent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float
    std: float
    ser: float | None
    own_accuracy: float
    own_std: float
    groups: dict[str, float]


@dataclass(frozen=True)
class Result:
    """What one arm came to on one seed."""

    seed: int
    arm: Arm
    figures: Figures


class Kept(BaseModel):
    """Figures on disk, and what they were measured of and on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measured: str
    figures: Figures


class Examiner:
    """Measures embeddings on the test faces of one seed, rendered when they are first needed.

    A face's embedding is the unit sum of those of the face and of its mirror image, as the paper
    tests.

    Args:
        recipe: The recipe with the seed's own seed.
        folder: The seed's folder.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self._recipe, self._folder = recipe, folder
        self._views: dict[str, list[Tensor]] = {}

    @cached_property
    def tests(self) -> TestSet:
        """The test faces and pairs."""
        return test_set_of(self._recipe, self._folder)

    def adaptor(self, path: Path, adaptor: Artifact, teachers: Sequence[Artifact]) -> Figures:
        """Return the figures of an adaptor on its teachers; `path` keeps them."""

        def views() -> list[Tensor]:
            joined = [
                torch.cat(parts, 1)
                for parts in zip(*(self._seen_by(teacher) for teacher in teachers), strict=True)
            ]
            module = load_adaptor(adaptor)
            with torch.inference_mode():
                return [unit(module(view)) for view in joined]

        return self._kept(path, adaptor, views)

    def student(self, path: Path, student: Artifact) -> Figures:
        """Return the figures of a student; `path` keeps them."""
        return self._kept(
            path,
            student,
            lambda: self._embedded(student),
        )

    def _seen_by(self, teacher: Artifact) -> list[Tensor]:
        """Return a teacher's embeddings of both views; adaptors share them."""
        key = teacher.manifest.id
        if key not in self._views:
            self._views[key] = self._embedded(teacher)
        return self._views[key]

    def _embedded(self, artifact: Artifact) -> list[Tensor]:
        """Return a network's unit embeddings of every test face: as it is, and mirrored."""
        backbone = inference_copy(load_backbone(artifact), _CPU, "fp32")
        parts: list[list[Tensor]] = [[] for _ in range(VIEWS)]
        images = self.tests.faces.images
        for start in range(0, len(images), _BATCH):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
            for view, seen in enumerate((pixels, pixels.flip(2))):
                parts[view].append(embed(backbone, seen, self._recipe.preprocessing))
        return [torch.cat(part) for part in parts]

    def _kept(self, path: Path, network: Artifact, views: Callable[[], list[Tensor]]) -> Figures:
        measured = digest_of(
            {
                "revision": _REVISION,
                "network": network.manifest.id,
                "test": self._recipe.test.model_dump(mode="json"),
                "data": self._recipe.data.model_dump(mode="json"),
                "seed": self._recipe.seed,
            }
        )
        try:
            kept = Kept.model_validate_json(path.read_bytes())
            if kept.measured == measured:
                return kept.figures
        except (OSError, ValidationError):
            pass  # not there, or damaged: it is measured again
        figures = measure(self.tests, unit(torch.stack(views()).sum(0)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            text = Kept(measured=measured, figures=figures).model_dump_json(indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
        return figures


def measure(tests: TestSet, embeddings: Tensor) -> Figures:
    """Measure unit embeddings, `(N, dim)`, of the test faces on the test pairs."""
    vectors, pairs = embeddings.numpy(), tests.pairs
    names = tests.faces.group_names
    metrics = evaluate(
        make_scores(
            [names[group] for group in pairs.groups],
            [bool(same) for same in pairs.genuine],
            np.einsum("pd,pd->p", vectors[pairs.first], vectors[pairs.second]).tolist(),
            "test pairs",
        )
    )
    own = metrics.summary.per_group_thresholds
    return Figures(
        accuracy=metrics.summary.accuracy_mean,
        std=metrics.summary.std,
        ser=metrics.summary.ser,
        own_accuracy=own.accuracy_mean,
        own_std=own.std,
        groups={name: group.accuracy for name, group in metrics.groups.items()},
    )
