"""What the connections to a server share, whatever sends their requests: no network I/O here."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2 as protocol

from mstkd_client._errors import (
    ClientClosed,
    DeadlineExceeded,
    MstkdClientError,
    ServerUnavailable,
)
from mstkd_client._failures import describe
from mstkd_client._flight import Flight, Ticket
from mstkd_client._model import ServedModel
from mstkd_client._observe import Call
from mstkd_client._retry import RetryBudget
from mstkd_client._settings import Settings, check_seconds
from mstkd_client._shm import SharedPixels
from mstkd_client._wire import encode

_COMPRESSION: Final = {None: grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
_CLOCKS_DIFFER_BY: Final = 0.1
"""Seconds. A server that stood still takes the first requests after it for long expired; who has
more time left than this asks again."""


class BaseServer:
    """A server and one of its models: what was learned of them, and how they are asked.

    Args:
        settings: The client's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.budget = RetryBudget(settings.retry)
        self.served: ServedModel | None = None
        self.answered = False
        self.closed = False
        self.shared: SharedPixels | None = None
        self.connected()

    def connected(self) -> None:
        """Note that the connection is new, of this process, and shares no memory yet."""
        self._process = os.getpid()
        self.shared = None
        self._offered = False

    @property
    def model(self) -> tuple[str, str]:
        """Name and version of the model asked for."""
        return self.settings.model, self.settings.model_version

    def flight(self, timeout: float | None) -> Flight:
        """Return the state machine of one call.

        Args:
            timeout: Seconds that one request may take; the settings' own where it is None.

        Raises:
            InvalidSettings: `timeout` is no number above 0.
        """
        if timeout is None:
            timeout = self.settings.timeout
        else:
            check_seconds("timeout", timeout, least=0.0, above=True)
        return Flight(self.settings.in_flight, timeout, self.budget)

    def request(self, ticket: Ticket, call: Call) -> tuple[bytes, dict[str, Any]]:
        """Return the message of one attempt of a request, and gRPC's options for it."""
        left = max(ticket.deadline - ticket.sent, 0.001)
        region = None
        if self.shared and (placed := self.shared.place(ticket.faces)):
            region, ticket.free = placed
        message = encode(self.model, ticket.faces, left, region)
        compression = _COMPRESSION[self.settings.compression]
        return message, self.options(left, call.headers) | {"compression": compression}

    def question(self, method: str) -> Any:
        """Return the request of one of the server's small methods, about the model where it is."""
        kind = getattr(protocol, f"{method}Request")
        name, version = self.model
        return kind(name=name, version=version) if method.startswith("Model") else kind()

    def options(self, timeout: float, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return gRPC's options for a call: its deadline in seconds, and metadata."""
        metadata = tuple((self.settings.headers | dict(headers or {})).items())
        return {"timeout": timeout, "metadata": metadata}

    def release(self, ticket: Ticket) -> None:
        """Give back what an attempt held."""
        free, ticket.free = ticket.free, None
        if free is not None:
            free()

    def offer(self, rows: int) -> SharedPixels | None:
        """Return memory to offer to the server, once a connection; None where it is of no use."""
        wanted = self.settings.shared_memory and self.settings.is_local
        if not wanted or self._offered:
            return None
        self._offered = True
        with suppress(OSError):  # there is none here, or it is full: the wire does as well
            return SharedPixels(2 * self.settings.in_flight, rows)
        return None

    def registration(self, offered: SharedPixels) -> Any:
        """Return the request that makes the server map memory."""
        return protocol.SystemSharedMemoryRegisterRequest(
            name=offered.name, key=offered.key, byte_size=offered.byte_size
        )

    def forgetting(self, shared: SharedPixels) -> Any:
        """Return the request that makes the server let go of memory."""
        return protocol.SystemSharedMemoryUnregisterRequest(name=shared.name)

    def check_open(self) -> None:
        """Raise ClientClosed where the client was closed."""
        if self.closed:
            raise ClientClosed("this client is closed. Make a new one.")

    def error(
        self,
        kind: type[MstkdClientError],
        message: str,
        timeout: float,
        left: float,
        models: Mapping[str, str] | None = None,
    ) -> MstkdClientError:
        """Put a failure into words.

        Args:
            kind: From `classify`.
            message: Triton's or gRPC's message.
            timeout: Seconds that the request had.
            left: Seconds of them that are left.
            models: The server's models and why each is not ready ("" where it is), if known.
        """
        if kind not in (DeadlineExceeded, ServerUnavailable):
            self.answered = True
        if "shared memory region" in message:  # a server that was restarted does not know it
            self.shared, self._offered = None, False
            kind = ServerUnavailable
        if kind is DeadlineExceeded and "expired" not in message:
            if left > _CLOCKS_DIFFER_BY:
                kind, message = ServerUnavailable, "it gave up before the time was up"
            elif not self.answered:
                kind, message = ServerUnavailable, f"no answer within {timeout:g} s"
        name, version = self.model
        return describe(
            kind,
            message,
            url=self.settings.url,
            model=f"{name!r} version {version}" if version else f"{name!r}",
            timeout=timeout,
            models=models,
        )
