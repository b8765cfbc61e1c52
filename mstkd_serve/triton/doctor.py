"""Examine a running server: does every model still give its golden embeddings?"""

import contextlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import MstkdError, ServerError
from mstkd_serve.golden import GoldenRecord, golden_faces
from mstkd_serve.graph import INPUT_NAME, OUTPUT_NAME, SCORE_NAME
from mstkd_serve.model_kind import Kind, kind_of
from mstkd_serve.parity import Agreement, compare

_MIN_COSINE = {"fp32": 0.9999}
_MIN_COSINE_REDUCED = 0.999
_MAX_ABS = 0.05
_MAX_SCORE_ERROR = 0.02


@dataclass(frozen=True)
class Finding:
    """What the examination of one model found.

    Attributes:
        model: Name of the model.
        version: The version that answered.
        contract_id: Id of its contract, empty where it could not be read.
        agreement: Served against golden embeddings; None where the model did not answer, or does
            not give embeddings of faces.
        note: What was found instead, for such a model.
        problem: What is wrong, empty where nothing is.
    """

    model: str
    version: str
    contract_id: str
    agreement: Agreement | None
    problem: str
    note: str = ""


def examine(url: str, timeout: float = 10.0) -> list[Finding]:
    """Send the golden faces to every model of a server, in one batch and one by one.

    Args:
        url: gRPC address, `host:port`.
        timeout: Seconds for each call.

    Raises:
        ServerError: The server cannot be reached or has no models.
    """
    try:
        with contextlib.closing(InferenceServerClient(url)) as client:
            index = client.get_model_repository_index(client_timeout=timeout)
            findings = [_examine_model(client, model.name, timeout) for model in index.models]
    except InferenceServerException as error:
        raise ServerError(
            f"{url}: no Triton server answers there ({error.message()}). "
            "Start one with 'mstkd-serve up', or check --url."
        ) from error
    if not findings:
        raise ServerError(f"{url}: the server has no models.")
    return findings


def _examine_model(client: InferenceServerClient, name: str, timeout: float) -> Finding:
    version, contract_id = "", ""
    try:
        config = client.get_model_config(name, client_timeout=timeout).config
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        contract = FaceContract.from_metadata(parameters, source=name)
        if contract is None:
            return Finding(name, version, "", None, "carries no face contract")
        contract_id = contract.id
        kind = kind_of(parameters, source=name)
        if kind in (Kind.ADAPTOR, Kind.COMPARE):
            return Finding(name, version, contract_id, None, "", "a step of others")
        expected = GoldenRecord.from_metadata(parameters, source=name).embeddings
        faces = golden_faces()
        if kind is Kind.VERIFY:
            apart, version = _score_error(client, name, expected, timeout)
            problem = "" if apart <= _MAX_SCORE_ERROR else f"scores are off by {apart:.4f}"
            return Finding(name, version, contract_id, None, problem, f"scores within {apart:.1e}")
        batched, version = _embed(client, name, faces[: config.max_batch_size], timeout)
        single, version = _embed(client, name, faces[:1], timeout)
        answered = np.concatenate([batched, single])
        agreement = compare(
            answered, np.concatenate([expected[: len(batched)], expected[:1]]), name
        )
        bound = _MIN_COSINE.get(parameters.get("mstkd.precision", ""), _MIN_COSINE_REDUCED)
        agreement.require(name, min_cosine=bound, max_abs=_MAX_ABS)
    except InferenceServerException as error:
        return Finding(name, version, contract_id, None, str(error.message()))
    except MstkdError as error:
        return Finding(name, version, contract_id, None, str(error))
    return Finding(name, version, contract_id, agreement, "")


def _score_error(
    client: InferenceServerClient, name: str, golden: NDArray[np.float32], timeout: float
) -> tuple[float, str]:
    """Verify each golden face against the next; return the largest error, and the version."""
    other = np.roll(np.arange(len(golden)), 1)
    expected = np.sum(golden * golden[other], axis=1)
    errors = []
    for first, second, score in zip(golden_faces(), golden_faces()[other], expected, strict=True):
        requests = [
            InferInput(side, [1, *face.shape], "UINT8")
            for side, face in (("faces_a", first), ("faces_b", second))
        ]
        for request, face in zip(requests, (first, second), strict=True):
            request.set_data_from_numpy(np.ascontiguousarray(face[np.newaxis]))
        result = client.infer(name, requests, client_timeout=timeout)
        errors.append(abs(float(result.as_numpy(SCORE_NAME)[0, 0]) - float(score)))
    return max(errors), result.get_response().model_version


def _embed(
    client: InferenceServerClient, name: str, faces: NDArray[np.uint8], timeout: float
) -> tuple[NDArray[np.float32], str]:
    request = InferInput(INPUT_NAME, list(faces.shape), "UINT8")
    request.set_data_from_numpy(np.ascontiguousarray(faces))
    result = client.infer(name, [request], client_timeout=timeout)
    return result.as_numpy(OUTPUT_NAME), result.get_response().model_version
