"""The few questions that the server's starter asks over HTTP, on loopback."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from mstkd_serve.errors import ServerError


def is_ready(port: int, timeout: float) -> bool:
    """Tell whether the server and all its models are ready; False where nothing answers."""
    try:
        with _open(port, "v2/health/ready", None, {}, timeout) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def server_version(port: int, timeout: float = 5.0) -> str:
    """Return Triton's version.

    Raises:
        ServerError: The server does not answer.
    """
    return str(_json(port, "v2", None, {}, timeout)["version"])


def repository_index(
    port: int, headers: Mapping[str, str], timeout: float = 5.0
) -> list[dict[str, Any]]:
    """Return the models of the repository: name, version, state, reason.

    Args:
        port: Of Triton's HTTP endpoint, on loopback.
        headers: Those that open the model-repository protocol.
        timeout: Seconds.

    Raises:
        ServerError: The server does not answer, or not to us.
    """
    index: list[dict[str, Any]] = _json(port, "v2/repository/index", b"{}", headers, timeout)
    return index


def load_model(port: int, name: str, headers: Mapping[str, str], timeout: float = 300.0) -> None:
    """Load a model anew.

    Raises:
        ServerError: The server refuses, or the model cannot be loaded.
    """
    try:
        _open(port, f"v2/repository/models/{name}/load", b"{}", headers, timeout).close()
    except OSError as error:
        raise ServerError(f"model {name!r} cannot be loaded anew ({error}).") from error


def _json(
    port: int, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
) -> Any:
    try:
        with _open(port, path, body, headers, timeout) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise ServerError(
            f"127.0.0.1:{port}/{path}: tritonserver gave no answer ({error})."
        ) from error


def _open(
    port: int, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", body, dict(headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy
    return opener.open(request, timeout=timeout)
