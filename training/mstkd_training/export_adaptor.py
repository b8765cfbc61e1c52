"""Export an adaptor by itself, for the ensemble mode: embeddings in, their joint embedding out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from mstkd_serve.contract import FaceContract
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import DataError
from mstkd_serve.files import atomic_path
from mstkd_serve.graph import AGREEMENT_NAME, OUTPUT_NAME, Teacher, teachers_metadata
from mstkd_serve.parity import Agreement, compare
from mstkd_training.artifact import Artifact
from mstkd_training.embedding import unit
from mstkd_training.export import MAX_ABS, MIN_COSINE
from mstkd_training.export_network import AdaptorAlone, open_teachers, write_adaptor_onnx
from mstkd_training.stages.adaptor import load_adaptor

_PROOF_ROWS = 8
_PROOF_SEED = 20_240_816


def export_adaptor(
    artifact_folder: Path, out: Path, *, teachers: Sequence[Path] = ()
) -> tuple[FaceContract, Agreement]:
    """Write an adaptor as ONNX and prove it.

    The file takes `embedding_<group>` FLOAT `[N, dim]` of each teacher, unit length, and gives
    `embedding` `[N, dim]` and `agreement` `[N, 1]`. It carries the contract of the
    teacher-projection path and the teachers in their order, each by the embedding space of its
    own export, so that `mstkd-serve repo build` refuses any others.

    The proof compares torch with ONNX Runtime on random unit vectors in batches of 1 and 8.

    Args:
        artifact_folder: An adaptor artifact.
        out: The file to write; it appears only when the proof holds.
        teachers: Teacher folders in its order, if they are not beside it.

    Returns:
        The contract in the file, and how closely the file agrees with torch.

    Raises:
        DataError: The artifact is no adaptor, or the teachers are not its own in its order.
        ParityError: The written file differs from torch.
    """
    artifact = Artifact.open(artifact_folder, "adaptor")
    manifest = artifact.manifest
    if manifest.preprocessing is None or not (manifest.embedding_dim and manifest.embedding_space):
        raise DataError(f"{artifact.path}: its manifest names no preprocessing or no dimension.")
    described = tuple(
        Teacher(
            name=reference.name,
            group=reference.group,
            embedding_space=teacher.manifest.embedding_space or teacher.manifest.id,
            embedding_dim=reference.embedding_dim,
        )
        for reference, teacher in zip(
            manifest.teachers, open_teachers(artifact, teachers), strict=True
        )
    )
    contract = FaceContract(
        **manifest.preprocessing.model_dump(),
        embedding_dim=manifest.embedding_dim,
        embedding_space=manifest.embedding_space,
    )
    inputs = {teacher.part: teacher.embedding_dim for teacher in described}
    network = AdaptorAlone(load_adaptor(artifact), list(inputs.values())).eval()
    with atomic_path(out) as temporary:
        write_adaptor_onnx(network, temporary, inputs)
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, contract.metadata() | teachers_metadata(described))
        onnx.save(model, temporary)
        agreement = _prove(out, temporary, network, inputs)
    return contract, agreement


def _prove(name: Path, written: Path, network: AdaptorAlone, inputs: dict[str, int]) -> Agreement:
    generator = torch.Generator().manual_seed(_PROOF_SEED)
    rows = {
        part: unit(torch.randn(_PROOF_ROWS, dim, generator=generator))
        for part, dim in inputs.items()
    }
    with torch.inference_mode():
        expected, agreeing = (answer.numpy() for answer in network(*rows.values()))
    engine = OnnxRuntimeEngine(written)
    whole = engine.run_named({part: batch.numpy() for part, batch in rows.items()})
    single = [
        engine.run_named({part: batch[row : row + 1].numpy() for part, batch in rows.items()})
        for row in range(_PROOF_ROWS)
    ]
    what = f"{name}: ONNX Runtime against torch"
    actual = np.concatenate([whole[OUTPUT_NAME], *(answer[OUTPUT_NAME] for answer in single)])
    agreement = compare(actual, np.concatenate([expected, expected]), what)
    apart = np.abs(whole[AGREEMENT_NAME] - agreeing).max()
    worst = Agreement(agreement.min_cosine, max(agreement.max_abs, float(apart)), agreement.rows)
    worst.require(what, min_cosine=MIN_COSINE, max_abs=MAX_ABS)
    return worst
