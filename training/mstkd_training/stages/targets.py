"""Targets stage: what the student regresses to, for every training image in both views.

Its file is `targets.npy`, float32 `(N, views, dim)`, every vector of unit length.
"""

import torch

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact, writing_artifact
from mstkd_training.embedding import VIEWS, unit
from mstkd_training.recipe import TargetsSection
from mstkd_training.stages.adaptor import load_adaptor
from mstkd_training.stages.run import StageRun


def make_targets(
    run: StageRun, embeddings: Artifact, adaptor: Artifact, section: TargetsSection
) -> Artifact:
    """Send all teacher embeddings through the adaptor.

    Args:
        run: The stage's name, seed, place and device.
        embeddings: An embeddings artifact.
        adaptor: An adaptor artifact trained on the same teachers in the same order.
        section: The batch size.

    Raises:
        DataError: The adaptor expects other teachers or another order.
    """
    if embeddings.manifest.teachers != adaptor.manifest.teachers:
        have = ", ".join(teacher.name for teacher in embeddings.manifest.teachers)
        want = ", ".join(teacher.name for teacher in adaptor.manifest.teachers)
        raise DataError(
            f"{embeddings.path}: embeddings of {have}, but {adaptor.path} was trained on exactly "
            f"these teachers in this order: {want}. Run the pipeline again."
        )
    vectors = embeddings.array("embeddings")
    device = run.processes.device
    module = load_adaptor(adaptor).to(device)
    count, dim = len(vectors), adaptor.manifest.embedding_dim
    if dim is None:
        raise DataError(f"{adaptor.path}: its manifest names no embedding_dim.")
    with writing_artifact(run.target) as draft, torch.inference_mode():
        array = draft.open_array("targets", (count, VIEWS, dim), "float32")
        with run.reporter.bar(run.name, count) as bar:
            for start in range(0, count, section.batch_size):
                rows = torch.from_numpy(vectors[start : start + section.batch_size].copy())
                outputs = unit(module(rows.to(device).float().flatten(0, 1)))
                array[start : start + len(rows)] = outputs.view(-1, VIEWS, dim).cpu().numpy()
                bar.advance(len(rows))
        array.flush()  # type: ignore[attr-defined]
        del array
        draft.finish(
            **run.manifest(),
            groups=adaptor.manifest.groups,
            preprocessing=run.preprocessing,
            embedding_dim=dim,
            teachers=adaptor.manifest.teachers,
            embedding_space=adaptor.manifest.embedding_space,
        )
    return Artifact.open(run.target, "targets")
