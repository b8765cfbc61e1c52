"""Load, unload and list the models of a running server, over gRPC."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mstkd_serve.errors import ServerError
from mstkd_serve.triton.access import grpc_headers
from mstkd_serve.triton.endpoint import Endpoint

_SECONDS = 300.0


class ControlClosed(ServerError):  # noqa: N818
    """The server does not show its models to callers without the key."""


class ModelState(NamedTuple):
    """One version of a model on a server: state `READY` or why it is not."""

    name: str
    version: str
    state: str
    reason: str


def list_models(endpoint: Endpoint, admin_key: str | None = None) -> list[ModelState]:
    """Return the models of a server's repository.

    Args:
        endpoint: The server.
        admin_key: The key of a server whose control protocols are closed.

    Raises:
        ServerError: The server does not answer, or not without the key.
    """
    with _controlling(endpoint, admin_key) as (client, headers):
        index = client.get_model_repository_index(headers=headers, client_timeout=10.0)
    return [
        ModelState(model.name, model.version, model.state, model.reason) for model in index.models
    ]


def ready_among(endpoint: Endpoint, names: Sequence[str]) -> list[str]:
    """Return those of some names that are models which are ready; needs no key.

    Raises:
        ServerError: The server does not answer.
    """
    with _controlling(endpoint, None) as (client, _):
        return [name for name in names if client.is_model_ready(name, client_timeout=10.0)]


def load_model(endpoint: Endpoint, name: str, admin_key: str | None = None) -> None:
    """Load a model, or load it anew from the repository; the old one answers until then.

    Raises:
        ServerError: As `list_models`; or the model cannot be loaded.
    """
    with _controlling(endpoint, admin_key) as (client, headers):
        client.load_model(name, headers=headers, client_timeout=_SECONDS)


def unload_model(endpoint: Endpoint, name: str, admin_key: str | None = None) -> None:
    """Unload a model once its requests in flight are answered.

    Raises:
        ServerError: As `list_models`; or the model cannot be unloaded.
    """
    with _controlling(endpoint, admin_key) as (client, headers):
        client.unload_model(name, headers=headers, client_timeout=_SECONDS)


@contextmanager
def _controlling(
    endpoint: Endpoint, admin_key: str | None
) -> Iterator[tuple[InferenceServerClient, dict[str, str]]]:
    headers = grpc_headers(admin_key) if admin_key else {}
    try:
        with contextlib.closing(endpoint.connect()) as client:
            yield client, headers
    except InferenceServerException as error:
        message = str(error.message())
        kind = ControlClosed if "is restricted" in message else ServerError
        raise kind(_explain(endpoint.url, message)) from error


def _explain(url: str, message: str) -> str:
    if "is restricted" in message:
        return (
            f"{url}: model control is closed to callers without the key. Give the "
            "--admin-key-file that the server was started with."
        )
    if "polling" in message or "explicit model load / unload is not allowed" in message:
        return f"{url}: this server's models are fixed. Start it with --model-control explicit."
    if "failed to connect" in message or "Connection refused" in message:
        return f"{url}: no Triton server answers there. Start one with 'mstkd-serve up'."
    first = message.strip().splitlines()[0] if message.strip() else "no reason"
    return f"{url}: {first}"
