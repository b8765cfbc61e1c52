"""Make, prove and write the served graph."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import ModelProto

from mstkd_serve.calibration import CALIBRATION_KEY
from mstkd_serve.contract import FaceContract, Preprocessing
from mstkd_serve.engine import Engine, OnnxRuntimeEngine
from mstkd_serve.errors import ContractError, EngineError, GraphError, ParityError
from mstkd_serve.files import atomic_path
from mstkd_serve.golden import FULL_PRECISION, GoldenRecord, golden_faces
from mstkd_serve.graph.bake import bake
from mstkd_serve.graph.batch import free_batch_axis
from mstkd_serve.graph.source import (
    check_network_input,
    is_served,
    load_model,
    metadata_of,
    weights_digest,
)
from mstkd_serve.parity import compare, unit_rows

_MIN_COSINE = 0.99999
_MAX_ABS = 1e-4
_REDUCED_MIN_COSINE = 0.999
"""For graphs in fewer bits: processors round them differently."""
_REDUCED_MAX_ABS = 0.02


def build_served_graph(
    source: Path,
    out: Path,
    *,
    preprocessing: Preprocessing | None = None,
    embedding_space: str | None = None,
) -> FaceContract:
    """Turn a recogniser's ONNX file into the served graph and prove that it is the same network.

    The proof runs on what was written: eight faces in one batch and one by one through the
    served graph must equal the source file, run one face at a time on input normalised in numpy
    by the contract. `out` appears only when the proof holds.

    Args:
        source: ONNX file with FLOAT `[1 or N, 3, 112, 112]` in and one embedding a face out; or
            an already served graph, which is checked against its golden embeddings and copied.
        out: The ONNX file to write.
        preprocessing: How the network was trained to see faces. May be left out where the
            source's metadata holds a contract; if both are there they must agree.
        embedding_space: Name of the embedding space; by default a hash of the weights.

    Returns:
        The contract that was written into the file's metadata.

    Raises:
        GraphError: The source cannot be made a served graph.
        ContractError: No contract is known, or two disagree.
        ParityError: The written graph differs from the source.
        EngineError: ONNX Runtime is not installed or refuses the file.
    """
    model = load_model(source)
    stored = FaceContract.from_metadata(metadata_of(model), source=str(source))
    chosen = _choose_preprocessing(source, stored, preprocessing)
    if is_served(model):
        if stored is not None and chosen != stored.preprocessing:
            raise ContractError(
                f"{source}: flipping is baked into this served graph (flip {stored.flip}). Give "
                "the network's float32 file to choose anew."
            )
        if stored is None:
            raise ContractError(
                f"{source}: it takes uint8 faces but carries no contract. Export it again, or "
                "give the network's float32 file and --contract."
            )
        return _copy_served(source, out, stored)

    check_network_input(model, source)
    reference = _run_source(source, chosen)
    contract = FaceContract(
        **chosen.model_dump(),
        embedding_dim=reference.shape[1],
        embedding_space=embedding_space
        or (stored.embedding_space if stored else f"weights-{weights_digest(model)}"),
    )
    served = _assemble(model, contract, reference)
    with atomic_path(out) as temporary:
        onnx.save(served, temporary)
        _prove(source, OnnxRuntimeEngine(temporary), reference)
    return contract


def proof_faces() -> NDArray[np.uint8]:
    """Return the eight faces of the proof, uint8 RGB: the golden ones and their mirror images."""
    faces = golden_faces()
    return np.concatenate([faces, faces[:, :, ::-1]])


def _choose_preprocessing(
    source: Path, stored: FaceContract | None, given: Preprocessing | None
) -> Preprocessing:
    if stored is None:
        if given is None:
            raise ContractError(
                f"{source}: nothing says how this model wants its pixels. Give --contract arcface "
                "(RGB, (x - 127.5) / 127.5) or --contract FILE.json with its mean and std."
            )
        return given
    if given is None:
        return stored.preprocessing
    if given.model_copy(update={"flip": stored.flip}) != stored.preprocessing:
        raise ContractError(
            f"{source}: --contract contradicts the contract in the file's metadata "
            f"(id {stored.id}). Leave --contract out, or export the model again."
        )
    return given


def _run_source(source: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Embed the proof faces with the source file, one face at a time: float32 `(8, dim)`."""
    engine = OnnxRuntimeEngine(source)

    def embed(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = []
        for pixels in preprocessing.network_input(faces):
            output = engine.run(pixels[np.newaxis])
            if output.ndim < 2 or output.shape[0] != 1 or output[0].size != output.shape[1]:
                raise GraphError(
                    f"{source}: its output has shape {list(output.shape)} for one face; a "
                    "recogniser answers one embedding, [1, dim]. Cut it there with "
                    "onnx.utils.extract_model."
                )
            rows.append(output.reshape(-1))
        return np.stack(rows)

    faces = proof_faces()
    embeddings = embed(faces)
    if preprocessing.flip:
        embeddings = embeddings + embed(faces[:, :, ::-1])
    return unit_rows(embeddings)


def _assemble(
    model: ModelProto, contract: FaceContract, reference: NDArray[np.float32]
) -> ModelProto:
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    free_batch_axis(model)
    served = bake(model, contract, contract.embedding_dim)
    record = GoldenRecord.of(reference[: len(golden_faces())])
    pairs = metadata_of(model) | contract.metadata() | record.metadata()
    pairs.pop(CALIBRATION_KEY, None)  # measured on another graph than this new one
    onnx.helper.set_model_props(served, pairs)
    return served


def _prove(source: Path, engine: Engine, reference: NDArray[np.float32]) -> None:
    faces = proof_faces()
    what = f"{source}: the served graph against the source"
    remedy = (
        " The network ties its batch size down somewhere: export it again with a dynamic batch "
        "axis (torch.onnx.export's dynamic_axes or dynamic_shapes)."
    )
    one_by_one = np.concatenate([engine.run(face[np.newaxis]) for face in faces])
    agreement = compare(one_by_one, reference, what)
    agreement.require(what, min_cosine=_MIN_COSINE, max_abs=_MAX_ABS)
    what = f"{source}: batch {len(faces)} against {len(faces)} times batch 1"
    try:
        agreement = compare(engine.run(faces), reference, what)
        agreement.require(what, min_cosine=_MIN_COSINE, max_abs=_MAX_ABS)
    except (EngineError, ParityError) as error:
        raise ParityError(f"{error}{remedy}") from error


def _copy_served(source: Path, out: Path, contract: FaceContract) -> FaceContract:
    """Copy a served graph after checking that it still gives its golden embeddings."""
    record = GoldenRecord.from_metadata(metadata_of(load_model(source)), source=str(source))
    what = f"{source}: its golden faces"
    answer = OnnxRuntimeEngine(source).run(golden_faces())
    full = record.precision == FULL_PRECISION
    compare(answer, record.embeddings, what).require(
        what,
        min_cosine=_MIN_COSINE if full else _REDUCED_MIN_COSINE,
        max_abs=_MAX_ABS if full else _REDUCED_MAX_ABS,
    )
    with atomic_path(out) as temporary:
        shutil.copyfile(source, temporary)
    return contract
