"""What the connections to a server share, whatever sends their requests: no network I/O here."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

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
from mstkd_client._wire import OUTPUTS, encode

_MICROSECONDS: Final = 1_000_000
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

    def infer_options(self, ticket: Ticket, call: Call) -> dict[str, Any]:
        """Return the arguments of tritonclient's `infer` for one attempt of a request."""
        name, version = self.model
        left = max(ticket.deadline - ticket.sent, 0.001)
        return {
            "model_name": name,
            "inputs": self._inputs(ticket),
            "model_version": version,
            "outputs": OUTPUTS,
            "timeout": max(1, round(left * _MICROSECONDS)),  # of Triton's queue
            "client_timeout": left,  # the deadline of the gRPC call
            "headers": self.settings.headers | call.headers,
            "compression_algorithm": self.settings.compression,
        }

    def _inputs(self, ticket: Ticket) -> list[Any]:
        """Return the request's tensors: in shared memory where there is room, else on the wire."""
        placed = self.shared.place(ticket.faces) if self.shared else None
        if placed is None:
            return encode(ticket.faces)
        inputs, ticket.free = placed
        return inputs

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
