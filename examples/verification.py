"""Verification of the demo's pairs: scores, accuracy by group, and a picture of the scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.fairness import AccuracyByGroup, accuracy_at, best_threshold
from mstkd_serve.files import atomic_path
from mstkd_training.data.pairs import Pairs


@dataclass(frozen=True)
class ModelResult:
    """What one served model achieved.

    Attributes:
        name: The model's name on the server.
        scores: float64 `(P,)` cosine scores of the pairs.
        accuracy: Accuracy by group at the best global threshold.
        faces_per_second: Throughput of one client sending full batches.
    """

    name: str
    scores: NDArray[np.float64]
    accuracy: AccuracyByGroup
    faces_per_second: float


def verify_model(
    name: str,
    embeddings: NDArray[np.float32],
    pairs: Pairs,
    groups: Sequence[str],
    faces_per_second: float,
) -> ModelResult:
    """Score the pairs by the cosine of their unit embeddings, float32 `(N, dim)`."""
    rows = embeddings.astype(np.float64)
    scores = np.sum(rows[pairs.first] * rows[pairs.second], axis=1)
    threshold = best_threshold(scores, pairs.genuine, groups)
    accuracy = accuracy_at(scores, pairs.genuine, groups, threshold)
    return ModelResult(name, scores, accuracy, faces_per_second)


def draw_scores(
    result: ModelResult, groups: Sequence[str], genuine: NDArray[np.bool_], path: Path
) -> None:
    """Draw genuine and impostor score histograms of each group into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(result.accuracy.accuracy)
    figure = Figure(figsize=(4 * len(names), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    edges = np.linspace(min(-0.2, float(result.scores.min())), 1.0, 41)
    members = np.asarray(groups)
    for axis, name in zip(axes, names, strict=True):
        for kind, colour, label in ((True, "tab:blue", "genuine"), (False, "tab:red", "impostor")):
            chosen = (members == name) & (genuine == kind)
            axis.hist(result.scores[chosen], edges, color=colour, alpha=0.6, label=label)
        axis.axvline(result.accuracy.threshold[name], color="black", linestyle="--", linewidth=1)
        axis.set_title(f"{name}: {result.accuracy.accuracy[name]:.1f} %")
        axis.set_xlabel("cosine score")
    axes[0].set_ylabel("pairs")
    axes[0].legend()
    figure.suptitle(f"{result.name}: scores of held-out identities, and the global threshold")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
