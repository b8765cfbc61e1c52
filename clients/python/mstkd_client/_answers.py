"""The answers of one call, put together and held to one version and one contract."""

import numpy as np

from mstkd_client._errors import ContractMismatch
from mstkd_client._flight import Ticket
from mstkd_client._observe import Call
from mstkd_client._timing import Timing
from mstkd_client._types import Embeddings, ModelInfo
from mstkd_client._wire import Answer


def check_same_version(answers: list[Answer], model_name: str, version: str = "") -> str:
    """Return the one version that answered.

    Args:
        answers: At least one.
        model_name: For the error message.
        version: The version of earlier answers, or "".

    Raises:
        ContractMismatch: Two versions answered one call.
    """
    version = version or answers[0].model_version
    for answer in answers:
        if answer.model_version != version:
            raise ContractMismatch(
                f"the server went from version {version} to {answer.model_version} of model "
                f"{model_name!r} between two requests. Embed all faces again."
            )
    return version


def check_same_contract(before: ModelInfo, after: ModelInfo) -> None:
    """Raise ContractMismatch where a model was replaced by an incomparable one."""
    if before.contract_id != after.contract_id:
        raise ContractMismatch(
            f"model {before.model_name!r} was replaced in the middle of a stream: its contract "
            f"went from {before.contract_id} to {after.contract_id}, so later embeddings are not "
            "comparable to earlier ones. Embed all faces again."
        )


def joined(answers: list[Answer], info: ModelInfo, call: Call) -> Embeddings:
    """Return the embeddings of a whole call, whose answers share one version."""
    vectors = np.concatenate([answer.vectors for answer in answers])
    version = answers[0].model_version
    return Embeddings(vectors, info.contract_id, info.model_name, version, call.timing())


def one_batch(ticket: Ticket, answer: Answer, info: ModelInfo) -> Embeddings:
    """Return the embeddings of one request of a stream, with that request's own times."""
    timing = Timing(
        total=ticket.round_trip,
        client=0.0,
        round_trip=ticket.round_trip,
        requests=1,
        retries=ticket.attempt - 1,
    )
    return Embeddings(
        answer.vectors, info.contract_id, info.model_name, answer.model_version, timing
    )
