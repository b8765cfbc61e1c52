"""From a gRPC status to one of the client's errors: one table, and the words.

The messages matched here are Triton's own, as tests against a real server see them.
"""

from collections.abc import Mapping
from typing import Any, Final

import grpc

from mstkd_client._errors import (
    DeadlineExceeded,
    ModelNotReady,
    MstkdClientError,
    Overloaded,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
)

ERROR_TABLE: Final[tuple[tuple[str, str, type[MstkdClientError]], ...]] = (
    ("UNAVAILABLE", "maximum queue size", Overloaded),
    ("UNAVAILABLE", "Request timeout expired", DeadlineExceeded),
    ("UNAVAILABLE", "not at ready state", ModelNotReady),
    ("UNAVAILABLE", "is restricted", Unauthenticated),
    ("UNAVAILABLE", "", ServerUnavailable),
    ("CANCELLED", "", ServerUnavailable),
    ("INTERNAL", "is not healthy", ServerUnavailable),
    ("UNIMPLEMENTED", "http2 header", ServerUnavailable),
    ("NOT_FOUND", "", ModelNotReady),
    ("DEADLINE_EXCEEDED", "", DeadlineExceeded),
    ("RESOURCE_EXHAUSTED", "larger than max", ServerFault),
    ("RESOURCE_EXHAUSTED", "", Overloaded),
    ("UNAUTHENTICATED", "", Unauthenticated),
    ("PERMISSION_DENIED", "", Unauthenticated),
)
"""gRPC status, a part of the message ("" fits any), error; the first fit counts, none is a
`ServerFault`. CANCELLED is the server's doing: what a client cancels itself never gets here.
"Not healthy" is a model's process that died or hung; Triton starts another."""

RETRIED: Final = (ServerUnavailable, Overloaded)
"""What may be sent again: the request was not run, or its answer was lost. To embed a face twice
does no harm. A passed deadline is not in it: there is no time left to try again."""


def classify(status: grpc.StatusCode, message: str) -> type[MstkdClientError]:
    """Look a failure up in `ERROR_TABLE`.

    Args:
        status: gRPC's.
        message: Triton's or gRPC's message.
    """
    for known, part, error in ERROR_TABLE:
        if status.name == known and part in message:
            return error
    return ServerFault


def describe(
    kind: type[MstkdClientError],
    message: str,
    *,
    url: str,
    model: str,
    timeout: float,
    models: Mapping[str, str] | None = None,
) -> MstkdClientError:
    """Put a failure into words.

    Args:
        kind: From `classify`.
        message: Triton's or gRPC's message.
        url: The server's address.
        model: The model's name, and its version where one was asked for.
        timeout: Seconds that the request had.
        models: The server's models and why each is not ready ("" where it is), if known.
    """
    detail = f" ({message})" if message else ""
    if kind is ServerUnavailable and "not healthy" in message:
        return kind(f"the process of model {model} at {url} broke{detail}. Try again later.")
    if kind is ServerUnavailable:
        return kind(
            f"no Triton server answers at {url}{detail}. Give the host:port of its gRPC "
            "endpoint, or start one with `mstkd-serve up --model-repo FOLDER`."
        )
    if kind is ModelNotReady:
        return kind(_not_ready(message, url, model, models))
    if kind is DeadlineExceeded:
        where = " (its time ran out in the server's queue)" if "expired" in message else ""
        return kind(
            f"{url} did not answer for model {model} within {timeout:g} s{where}. "
            "Give a longer timeout, or look at the server's load."
        )
    if kind is Overloaded:
        return kind(f"the server at {url} is overloaded{detail}. Try again later.")
    if kind is Unauthenticated:
        return kind(
            f"{url} refused the credentials{detail}. Give the right token, api_key or "
            "client certificate."
        )
    return kind(f"{url} failed for model {model}: {message or 'no reason'}")


def _not_ready(message: str, url: str, model: str, models: Mapping[str, str] | None) -> str:
    text = f"model {model} is not ready at {url} ({message})."
    if models is None:
        return text
    name = model.split("'")[1]
    if reason := models.get(name):
        return f"{text} The server says why: {reason}."
    return f"{text} Models that the server knows: {', '.join(sorted(models)) or 'none'}."


def model_states(index: Any) -> dict[str, str]:
    """Read Triton's `RepositoryIndexResponse`: model name to why it is not ready."""
    ready = {model.name for model in index.models if model.state == "READY"}
    reasons = {model.name: model.reason.partition("\n")[0] for model in index.models}
    return {name: "" if name in ready else reason for name, reason in reasons.items()}
