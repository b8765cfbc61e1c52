"""What the connections to a server share, whatever sends their requests: no network I/O here."""

import os
from collections.abc import Mapping
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
        self._process = os.getpid()

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
            "inputs": ticket.request.inputs,
            "model_version": version,
            "outputs": ticket.request.outputs,
            "timeout": max(1, round(left * _MICROSECONDS)),  # of Triton's queue
            "client_timeout": left,  # the deadline of the gRPC call
            "headers": self.settings.headers | call.headers,
            "compression_algorithm": self.settings.compression,
        }

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
