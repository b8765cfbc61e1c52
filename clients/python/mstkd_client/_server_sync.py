"""A blocking connection to a server: the small questions, and one attempt of a request."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import grpc

from mstkd_client._channel import Methods, channel_credentials, open_channel
from mstkd_client._errors import ClientClosed, ModelNotReady, MstkdClientError
from mstkd_client._failures import classify, model_states
from mstkd_client._flight import Ticket
from mstkd_client._model import ServedModel, parse_model
from mstkd_client._observe import Call
from mstkd_client._server import BaseServer
from mstkd_client._settings import Settings
from mstkd_client._timing import ServerCount
from mstkd_client._types import ModelInfo

_clock: Final = time.monotonic


class Server(BaseServer):
    """A server, asked by blocking calls. Threads may share it; a forked process reconnects."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._reading = threading.Lock()
        self._credentials = channel_credentials(settings)  # a bad file is refused here
        self._methods = self._connect()

    def _connect(self) -> Methods:
        return Methods(open_channel(self.settings, self._credentials))

    def _connection(self) -> Methods:
        """Return the connection; a forked process leaves its parent's alone and makes its own."""
        if self._process != os.getpid():
            self.connected()
            self._reading = threading.Lock()
            self._methods = self._connect()
        return self._methods

    def close(self) -> None:
        """Close the connection, once."""
        if not self.closed and self._process == os.getpid():
            if self.shared is not None:
                with suppress(grpc.RpcError):
                    self._methods.small.SystemSharedMemoryUnregister(
                        self.forgetting(self.shared), **self.options(1.0)
                    )
            self._methods.channel.close()
        self.closed = True

    def send(
        self, ticket: Ticket, call: Call, report: Callable[[Ticket, grpc.Future], None]
    ) -> Any:
        """Send one attempt of a request.

        Args:
            ticket: The request.
            call: The call that it belongs to.
            report: Called with the ticket and its finished future, in one of gRPC's threads.

        Returns:
            gRPC's future, whose `cancel` ends the request.

        Raises:
            ClientClosed: The client was closed.
        """
        self.check_open()
        message, options = self.request(ticket, call)
        try:
            future = self._connection().infer.future(message, **options)
        except ValueError:  # gRPC's word for a channel that another thread closed
            self.check_open()
            raise
        future.add_done_callback(partial(report, ticket))
        return future

    def share_memory(self, rows: int) -> None:
        """Offer the server memory for requests of up to `rows` faces, where the settings say so."""
        methods = self._connection()
        if (offered := self.offer(rows)) is None:
            return
        try:
            methods.small.SystemSharedMemoryRegister(
                self.registration(offered), **self.options(self.settings.timeout)
            )
            self.shared = offered
        except grpc.RpcError:  # refused, or on another machine: the wire does as well
            pass
        finally:
            offered.forget_name()

    def read_model(self, *, anew: bool = False) -> ServedModel:
        """Return the model's description: read once, and again only if asked to."""
        self._connection()
        with self._reading:
            if self.served is None or anew:
                metadata = self.ask("ModelMetadata")
                config = self.ask("ModelConfig").config
                server = self.ask("ServerMetadata")
                self.served = parse_model(metadata, config, str(server.version), self.model[1])
            return self.served

    def info_of(self, version: str) -> ModelInfo:
        """Return the model's info, read anew where it does not know `version`."""
        served = self.read_model()
        if version not in served.info.model_versions:
            served = self.read_model(anew=True)
        return served.info

    def count(self) -> ServerCount | None:
        """Return the model's running totals, where the settings ask for them."""
        if not self.settings.server_timing:
            return None
        return ServerCount.read(self.ask("ModelStatistics"))

    def ask(self, method: str, *, once: bool = False) -> Any:
        """Call one of the server's small methods, and again where `Retry` says so.

        Args:
            method: As Triton's service names it.
            once: Whether to leave it at one attempt.

        Raises:
            MstkdClientError: One of its subclasses, for what went wrong last.
        """
        deadline = _clock() + self.settings.timeout
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._try(method, deadline)
            except MstkdClientError as error:
                wait = self.budget.wait_before_retry(type(error), attempt, _clock(), deadline)
                if once or wait is None:
                    raise
                time.sleep(wait)
            else:
                self.budget.answered()
                return answer

    def _try(self, method: str, deadline: float) -> Any:
        self.check_open()
        send = getattr(self._connection().small, method)
        left = max(deadline - _clock(), 0.001)
        try:
            answer = send(self.question(method), **self.options(left))
        except grpc.RpcError as failure:
            raise self.failure(failure, self.settings.timeout, deadline) from failure
        except ValueError:  # gRPC's word for a channel that another thread closed
            self.check_open()
            raise
        self.answered = True
        return answer

    def failure(self, failure: Any, timeout: float, deadline: float) -> MstkdClientError:
        """Put gRPC's exception into one of the client's errors.

        Args:
            failure: A `grpc.RpcError` with a status.
            timeout: Seconds that the request had.
            deadline: When they are over, on the monotonic clock.
        """
        try:
            self.check_open()
        except ClientClosed as closed:  # by another thread, which made gRPC cancel
            return closed
        message = failure.details() or ""
        kind = classify(failure.code(), message)
        models = self._known_models() if kind is ModelNotReady else None
        return self.error(kind, message, timeout, deadline - _clock(), models)

    def _known_models(self) -> dict[str, str] | None:
        """Ask for the server's models; None where it does not tell."""
        options = self.options(self.settings.timeout)
        with suppress(grpc.RpcError):
            index = self._methods.small.RepositoryIndex(self.question("RepositoryIndex"), **options)
            return model_states(index)
        return None
