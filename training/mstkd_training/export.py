"""Export: an artifact becomes an ONNX file that was proven equal to the trained network."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from mstkd_serve.contract import FaceContract, Preprocessing
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import ContractError, DataError
from mstkd_serve.files import atomic_path
from mstkd_serve.graph import build_served_graph
from mstkd_serve.parity import Agreement, compare
from mstkd_training.artifact import Artifact
from mstkd_training.data.rendered import render_faceset
from mstkd_training.embedding import embed
from mstkd_training.export_network import UnitNorm, load_network, write_onnx

Flavor = Literal["served", "insightface"]

MIN_COSINE = 0.99999
MAX_ABS = 1e-4
_BATCHES = (1, 8)
_PROOF_SEED = 20_240_816
_GUESSED = ("Sub", "_minus", "Mul", "_mul")


def export(
    artifact_folder: Path,
    out: Path,
    *,
    flavor: Flavor = "served",
    flip: bool = False,
    teachers: Sequence[Path] = (),
) -> tuple[FaceContract, Agreement]:
    """Write an artifact's network as ONNX and prove it.

    `served` is the served graph: uint8 NHWC faces in, unit embeddings out. `insightface` takes
    normalised float NCHW pixels and loads in `insightface.model_zoo`. Both carry the contract.

    The proof compares torch (normalisation by the contract, network, L2 norm) with ONNX Runtime
    on the written file, for rendered faces in batches of 1 and 8.

    Args:
        artifact_folder: A teacher, a student, or an adaptor (all its teachers and the adaptor
            then become one graph).
        out: The file to write; it appears only when the proof holds.
        flavor: Which kind of file.
        flip: Whether an embedding is that of the face plus that of its mirror image.
        teachers: For an adaptor: teacher folders, if they are not beside it.

    Returns:
        The contract in the file, and how closely the file agrees with torch.

    Raises:
        DataError: The artifact or the teachers cannot be used.
        ContractError: The flavour cannot express the preprocessing.
        ParityError: The written file differs from torch.
    """
    artifact = Artifact.open(artifact_folder)
    manifest = artifact.manifest
    network = load_network(artifact, teachers)
    if manifest.preprocessing is None or manifest.embedding_dim is None:
        raise DataError(f"{artifact.path}: its manifest names no preprocessing or no dimension.")
    preprocessing = manifest.preprocessing.model_copy(update={"flip": flip})
    if flavor == "insightface":
        _require_insightface(artifact.path, preprocessing)
    faces = _proof_faces()
    expected = reference_embeddings(network, faces, preprocessing)
    with atomic_path(out) as temporary:
        if flavor == "served":
            contract = _write_served(network, temporary, preprocessing, manifest.embedding_space)
            to_input: Callable[[NDArray[np.uint8]], NDArray[Any]] = np.ascontiguousarray
        else:
            contract = FaceContract(
                **preprocessing.model_dump(),
                embedding_dim=manifest.embedding_dim,
                embedding_space=manifest.embedding_space or manifest.id,
            )
            _write_insightface(network, temporary, contract)
            to_input = preprocessing.network_input
        agreement = _prove(out, temporary, faces, expected, to_input)
    return contract, agreement


def reference_embeddings(
    network: nn.Module, faces: NDArray[np.uint8], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    """Return torch's embeddings, which the exported file must give.

    Args:
        network: In evaluation mode.
        faces: uint8 RGB `(N, 112, 112, 3)`.
        preprocessing: Normalisation; with `flip`, both views' raw outputs are added.

    Returns:
        float32 `(N, dim)`, unit norm.
    """
    pixels = torch.from_numpy(faces)
    if not preprocessing.flip:
        return np.asarray(embed(network, pixels, preprocessing).numpy(), np.float32)
    both = _BothViews(network).eval()
    return np.asarray(embed(both, pixels, preprocessing).numpy(), np.float32)


class _BothViews(nn.Module):
    """Adds the raw outputs for a face and its mirror image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_nchw: torch.Tensor) -> torch.Tensor:
        both: torch.Tensor = self.network(pixels_nchw) + self.network(pixels_nchw.flip(3))
        return both


def _write_served(
    network: nn.Module, out: Path, preprocessing: Preprocessing, space: str | None
) -> FaceContract:
    with tempfile.TemporaryDirectory(prefix="mstkd-export-") as folder:
        source = Path(folder) / "network.onnx"
        write_onnx(network, source)
        return build_served_graph(source, out, preprocessing=preprocessing, embedding_space=space)


def _require_insightface(path: Path, preprocessing: Preprocessing) -> None:
    """Refuse what `ArcFaceONNX` cannot do: it knows one normalisation and one view."""
    if preprocessing.flip:
        raise ContractError(f"{path}: insightface embeds one view; export without --flip.")
    if {*preprocessing.mean, *preprocessing.std} != {127.5}:
        raise ContractError(
            f"{path}: trained with mean {list(preprocessing.mean)} and std "
            f"{list(preprocessing.std)}, but insightface always feeds (x - 127.5) / 127.5. "
            "Use the served flavor."
        )


def _write_insightface(network: nn.Module, out: Path, contract: FaceContract) -> None:
    """Write a file that insightface reads as "normalised input", with the contract.

    insightface takes a file for one that normalises inside, and feeds raw pixels, if among its
    first eight nodes one is named Sub... and one Mul...; so none of ours is.
    """
    write_onnx(UnitNorm(network).eval(), out)
    model = onnx.load(out)
    for node in model.graph.node:
        if node.name.startswith(_GUESSED):
            node.name = f"network/{node.name}"
    onnx.helper.set_model_props(model, contract.metadata())
    onnx.save(model, out)


def _prove(
    name: Path,
    written: Path,
    faces: NDArray[np.uint8],
    expected: NDArray[np.float32],
    to_input: Callable[[NDArray[np.uint8]], NDArray[Any]],
) -> Agreement:
    """Compare the written file with torch at every batch size, and return the worst of all."""
    engine = OnnxRuntimeEngine(written)
    worst = Agreement(1.0, 0.0, 0)
    for size in _BATCHES:
        what = f"{name}: ONNX Runtime at batch {size} against torch"
        parts = [engine.run(to_input(faces[i : i + size])) for i in range(0, len(faces), size)]
        actual = np.concatenate(parts)
        agreement = compare(actual, expected, what)
        agreement.require(what, min_cosine=MIN_COSINE, max_abs=MAX_ABS)
        worst = Agreement(
            min(worst.min_cosine, agreement.min_cosine),
            max(worst.max_abs, agreement.max_abs),
            worst.rows + agreement.rows,
        )
    return worst


def _proof_faces() -> NDArray[np.uint8]:
    """Render eight faces, two of each of four groups, uint8 `(8, 112, 112, 3)`."""
    faces = render_faceset(
        group_names=("African", "Asian", "Caucasian", "Indian"),
        identities_per_group=2,
        images_per_identity=1,
        seed=_PROOF_SEED,
    )
    return np.asarray(faces.images, np.uint8)
