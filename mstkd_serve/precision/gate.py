"""How far a reduced copy of a model is from the model, in embeddings and in verification."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import ParityError
from mstkd_serve.fairness import evaluate
from mstkd_serve.fairness.pair_lists import ImagePair
from mstkd_serve.fairness.pair_scores import score_pairs

DEFAULT_MEAN_COSINE: Final = {"fp16": 0.9999, "bf16": 0.9995, "int8": 0.99}
"""Least mean cosine to the fp32 embeddings, by precision."""

Progress = Callable[[int, int], None]


class Bounds(BaseModel):
    """What a reduced copy must keep.

    Attributes:
        mean_cosine: Least mean cosine of its embeddings to the fp32 ones, -1 to 1.
        accuracy_change: Most that a group's accuracy may fall at the fp32 threshold, percentage
            points.
        std_change: Most that the STD of accuracy over the groups may rise, percentage points.
    """

    model_config = ConfigDict(frozen=True)

    mean_cosine: float = Field(ge=-1, le=1)
    accuracy_change: float = Field(default=0.5, ge=0, le=100)
    std_change: float = Field(default=0.25, ge=0, le=100)


class Comparison(BaseModel):
    """A reduced copy beside its model, on the images and pairs of a list.

    Attributes:
        images: Number of images.
        mean_cosine: Mean cosine of the two embeddings of an image.
        min_cosine: Their least cosine.
        threshold: The fp32 model's best threshold; both are measured at it.
        accuracy: Mean accuracy over the groups, percent: of the model, and of the copy.
        worst_fall: Largest fall of a group's accuracy, percentage points.
        std: STD of the accuracies: of the model, and of the copy.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    mean_cosine: float
    min_cosine: float
    threshold: float
    accuracy: tuple[float, float]
    worst_fall: float
    std: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"{self.images} images, cosine to fp32 {self.mean_cosine:.5f} on average and at least "
            f"{self.min_cosine:.5f}; accuracy {self.accuracy[0]:.2f} to {self.accuracy[1]:.2f} % "
            f"at the fp32 threshold, worst group {-self.worst_fall:+.2f}; "
            f"STD {self.std[0]:.3f} to {self.std[1]:.3f}"
        )

    def require(self, bounds: Bounds, what: str) -> None:
        """Refuse a copy that lost too much.

        Raises:
            ParityError: A bound is broken.
        """
        broken = []
        if not self.mean_cosine >= bounds.mean_cosine:
            broken.append(f"mean cosine below {bounds.mean_cosine}")
        if not self.worst_fall <= bounds.accuracy_change:
            broken.append(f"a group's accuracy fell by more than {bounds.accuracy_change}")
        if not self.std[1] - self.std[0] <= bounds.std_change:
            broken.append(f"STD rose by more than {bounds.std_change}")
        if broken:
            raise ParityError(f"{what}: {', '.join(broken)} ({self}). Nothing was written.")


def compare_graphs(
    model: Path,
    reduced: Path,
    pairs: Sequence[ImagePair],
    source: str,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Embed the images of a list of pairs with both graphs, and verify with both.

    Args:
        model: The fp32 served graph.
        reduced: Its copy.
        pairs: Pairs of aligned faces.
        source: Name of the list, for messages.
        progress: Called with the images embedded so far and their number.

    Raises:
        DataError: An image is unreadable, or a group has no genuine or no impostor pairs.
        EngineError: ONNX Runtime refuses a graph.
    """
    full, small = OnnxRuntimeEngine(model), OnnxRuntimeEngine(reduced)
    cosines: list[NDArray[np.float64]] = []

    def embed_with_both(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return both embeddings side by side, so that each image is read once."""
        first, second = full.run(faces), small.run(faces)
        cosines.append(np.sum(first.astype(np.float64) * second, axis=1))
        kept.append(second)
        return first

    kept: list[NDArray[np.float32]] = []
    before = score_pairs(pairs, embed_with_both, source, progress)
    replay = iter(kept)
    after = score_pairs(pairs, lambda faces: next(replay), source)
    threshold = _amid(evaluate(before).summary.threshold, before.score)
    metrics, copy = (evaluate(scores, threshold=threshold) for scores in (before, after))
    falls = [group.accuracy - copy.groups[name].accuracy for name, group in metrics.groups.items()]
    every = np.concatenate(cosines)
    return Comparison(
        images=len(every),
        mean_cosine=float(every.mean()),
        min_cosine=float(every.min()),
        threshold=threshold,
        accuracy=(metrics.summary.accuracy_mean, copy.summary.accuracy_mean),
        worst_fall=max(falls),
        std=(metrics.summary.std, copy.summary.std),
    )


def _amid(threshold: float, scores: NDArray[np.floating]) -> float:
    """Move a threshold, which lies on a score, halfway to the next lower one.

    It decides the same, but a rounding of that score does not change the decision.
    """
    lower = scores[scores < threshold]
    return float((threshold + lower.max()) / 2) if len(lower) else threshold
