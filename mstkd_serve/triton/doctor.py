"""Examine a running server: does every model still give its golden embeddings?"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import MstkdError, ServerError
from mstkd_serve.golden import FULL_PRECISION, GOLDEN_KEY, GoldenRecord, golden_faces
from mstkd_serve.graph import INPUT_NAME, OUTPUT_NAME, SCORE_NAME
from mstkd_serve.model_kind import Kind, kind_of
from mstkd_serve.parity import Agreement, compare
from mstkd_serve.triton.endpoint import Endpoint

_MIN_COSINE = 0.9999
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


def examine(endpoint: Endpoint, models: Sequence[str], timeout: float = 10.0) -> list[Finding]:
    """Send the golden faces to models of a server, in one batch and one by one.

    Args:
        endpoint: The server.
        models: Their names.
        timeout: Seconds for each call.

    Raises:
        ServerError: The server cannot be reached, or no model was named.
    """
    if not models:
        raise ServerError(f"{endpoint.url}: the server has no models.")
    try:
        with contextlib.closing(endpoint.connect()) as client:
            client.is_server_live(client_timeout=timeout)
            return [found for name in models for found in _examine_model(client, name, timeout)]
    except InferenceServerException as error:
        raise ServerError(
            f"{endpoint.url}: no Triton server answers there ({error.message()}). "
            "Start one with 'mstkd-serve up', or check --url."
        ) from error


def _examine_model(client: InferenceServerClient, name: str, timeout: float) -> list[Finding]:
    """Examine every version of a model that is ready."""
    contract_id = ""
    try:
        config = client.get_model_config(name, client_timeout=timeout).config
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        contract = FaceContract.from_metadata(parameters, source=name)
        if contract is None:
            return [Finding(name, "", "", None, "carries no face contract")]
        contract_id = contract.id
        kind = kind_of(parameters, source=name)
        versions = list(client.get_model_metadata(name, client_timeout=timeout).versions)
    except InferenceServerException as error:
        return [Finding(name, "", contract_id, None, str(error.message()))]
    except MstkdError as error:
        return [Finding(name, "", contract_id, None, str(error))]
    if kind in (Kind.ADAPTOR, Kind.COMPARE):
        note = "a step of others"
        return [Finding(name, version, contract_id, None, "", note) for version in versions]
    return [
        _examine_version(
            client, _Examined(name, version, contract_id, kind, parameters), config, timeout
        )
        for version in versions
    ]


class _Examined(NamedTuple):
    """One version of a model."""

    name: str
    version: str
    contract_id: str
    kind: Kind
    parameters: dict[str, str]


def _examine_version(
    client: InferenceServerClient, of: _Examined, config: Any, timeout: float
) -> Finding:
    own = of.parameters.get(f"{GOLDEN_KEY}@{of.version}", of.parameters.get(GOLDEN_KEY))
    golden = {GOLDEN_KEY: own} if own is not None else {}
    try:
        record = GoldenRecord.from_metadata(golden, source=of.name)
        expected = record.embeddings
        faces = golden_faces()
        if of.kind is Kind.VERIFY:
            apart = _score_error(client, of, expected, timeout)
            problem = "" if apart <= _MAX_SCORE_ERROR else f"scores are off by {apart:.4f}"
            return Finding(*of[:3], None, problem, f"scores within {apart:.1e}")
        batched = _embed(client, of, faces[: config.max_batch_size], timeout)
        single = _embed(client, of, faces[:1], timeout)
        answered = np.concatenate([batched, single])
        wanted = np.concatenate([expected[: len(batched)], expected[:1]])
        agreement = compare(answered, wanted, of.name)
        computed = {of.parameters.get("mstkd.precision", ""), record.precision}
        bound = _MIN_COSINE if computed == {FULL_PRECISION} else _MIN_COSINE_REDUCED
        agreement.require(of.name, min_cosine=bound, max_abs=_MAX_ABS)
    except InferenceServerException as error:
        return Finding(*of[:3], None, str(error.message()))
    except MstkdError as error:
        return Finding(*of[:3], None, str(error))
    return Finding(*of[:3], agreement, "")


def _score_error(
    client: InferenceServerClient, of: _Examined, golden: NDArray[np.float32], timeout: float
) -> float:
    """Verify each golden face against the next; return the largest error."""
    other = np.roll(np.arange(len(golden)), 1)
    expected = np.sum(golden * golden[other], axis=1)
    errors = []
    for first, second, score in zip(golden_faces(), golden_faces()[other], expected, strict=True):
        sides = {"faces_a": first[np.newaxis], "faces_b": second[np.newaxis]}
        answer = _infer(client, of, sides, SCORE_NAME, timeout)
        errors.append(abs(float(answer[0, 0]) - float(score)))
    return max(errors)


def _embed(
    client: InferenceServerClient, of: _Examined, faces: NDArray[np.uint8], timeout: float
) -> NDArray[np.float32]:
    return _infer(client, of, {INPUT_NAME: faces}, OUTPUT_NAME, timeout)


def _infer(
    client: InferenceServerClient,
    of: _Examined,
    inputs: dict[str, NDArray[np.uint8]],
    output: str,
    timeout: float,
) -> NDArray[np.float32]:
    requests = []
    for name, faces in inputs.items():
        requests.append(InferInput(name, list(faces.shape), "UINT8"))
        requests[-1].set_data_from_numpy(np.ascontiguousarray(faces))
    result = client.infer(of.name, requests, of.version, client_timeout=timeout)
    answer: NDArray[np.float32] = result.as_numpy(output)
    return answer
