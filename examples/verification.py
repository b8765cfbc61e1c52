"""Verification of the demo's pairs by one served model, and a picture of its scores."""

import time
from pathlib import Path

import numpy as np

from mstkd_client import FaceClient
from mstkd_serve.fairness import Metrics, ModelDescription, evaluate, make_scores
from mstkd_serve.files import atomic_path
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.pairs import Pairs


def verify_model(url: str, name: str, faces: FaceSet, pairs: Pairs) -> tuple[Metrics, float]:
    """Embed all faces over gRPC and measure the cosine scores of the pairs.

    Returns:
        The metrics, and the faces a second of one client that sends full batches.
    """
    with FaceClient(url, model_name=name) as client:
        contract_id = client.info().contract_id
        begun = time.perf_counter()
        embeddings = client.embed(faces.images[:])
        seconds = time.perf_counter() - begun
    rows = embeddings.vectors.astype(np.float64)
    scores = make_scores(
        [faces.group_names[index] for index in pairs.groups],
        pairs.genuine,
        np.einsum("pd,pd->p", rows[pairs.first], rows[pairs.second]),
        source="rendered faces of held-out identities",
    )
    model = ModelDescription(name=name, contract_id=contract_id)
    return evaluate(scores, bootstrap=1000, model=model), len(faces.images) / seconds


def draw_scores(metrics: Metrics, path: Path) -> None:
    """Draw genuine and impostor score histograms of each group into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(metrics.groups), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(metrics.groups), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, group) in zip(axes, metrics.groups.items(), strict=True):
        for kind, colour in (("impostor", "#D55E00"), ("genuine", "#0072B2")):
            counts = getattr(group.histogram, kind)
            axis.stairs(
                counts, group.histogram.edges, fill=True, color=colour, alpha=0.6, label=kind
            )
        axis.axvline(metrics.summary.threshold, color="black", linestyle="--", linewidth=1)
        axis.set_title(f"{name}: {group.accuracy:.1f} %")
        axis.set_xlabel("cosine score")
    axes[0].set_ylabel("pairs")
    axes[0].legend()
    figure.suptitle(
        f"{metrics.model.name}: scores of held-out identities, and the global threshold"
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
