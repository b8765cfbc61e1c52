"""A blocking connection to a server: the small questions, and one attempt of a request."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mstkd_client._channel import channel_arguments, channel_credentials
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
        self._triton: Any = self._connect()

    def _connect(self) -> InferenceServerClient:
        return InferenceServerClient(
            self.settings.url,
            creds=channel_credentials(self.settings),
            channel_args=channel_arguments(self.settings),
        )

    def _connection(self) -> Any:
        """Return the connection; a forked process leaves its parent's alone and makes its own."""
        if self._process != os.getpid():
            self.connected()
            self._reading = threading.Lock()
            self._triton = self._connect()
        return self._triton

    def close(self) -> None:
        """Close the connection, once."""
        if not self.closed and self._process == os.getpid():
            if self.shared is not None:
                with suppress(InferenceServerException):
                    self._triton.unregister_system_shared_memory(
                        self.shared.name, client_timeout=1.0, headers=self.settings.headers
                    )
            self._triton.close()
        self.closed = True

    def send(
        self,
        ticket: Ticket,
        call: Call,
        report: Callable[[Any, InferenceServerException | None], None],
    ) -> Any:
        """Send one attempt of a request.

        Args:
            ticket: The request.
            call: The call that it belongs to.
            report: Called with the result or the failure, in one of gRPC's threads.

        Returns:
            tritonclient's `CallContext`, whose `cancel` ends the request.

        Raises:
            ClientClosed: The client was closed.
        """
        self.check_open()
        options = self.infer_options(ticket, call)
        try:
            return self._connection().async_infer(callback=report, **options)
        except ValueError:  # gRPC's word for a channel that another thread closed
            self.check_open()
            raise

    def share_memory(self, rows: int) -> None:
        """Offer the server memory for requests of up to `rows` faces, where the settings say so."""
        self._connection()
        if (offered := self.offer(rows)) is None:
            return
        try:
            self._connection().register_system_shared_memory(
                offered.name,
                offered.key,
                offered.byte_size,
                client_timeout=self.settings.timeout,
                headers=self.settings.headers,
            )
            self.shared = offered
        except InferenceServerException:  # refused, or on another machine: the wire does as well
            pass
        finally:
            offered.forget_name()

    def read_model(self, *, anew: bool = False) -> ServedModel:
        """Return the model's description: read once, and again only if asked to."""
        self._connection()
        with self._reading:
            if self.served is None or anew:
                metadata = self.ask("get_model_metadata", *self.model)
                config = self.ask("get_model_config", *self.model)
                server = self.ask("get_server_metadata")
                self.served = parse_model(metadata, config.config, str(server.version))
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
        return ServerCount.read(self.ask("get_inference_statistics", *self.model))

    def ask(self, method: str, *arguments: Any, once: bool = False) -> Any:
        """Call one of the server's small methods, and again where `Retry` says so.

        Raises:
            MstkdClientError: One of its subclasses, for what went wrong last.
        """
        deadline = _clock() + self.settings.timeout
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._try(method, *arguments, deadline=deadline)
            except MstkdClientError as error:
                wait = self.budget.wait_before_retry(type(error), attempt, _clock(), deadline)
                if once or wait is None:
                    raise
                time.sleep(wait)
            else:
                self.budget.answered()
                return answer

    def _try(self, method: str, *arguments: Any, deadline: float) -> Any:
        self.check_open()
        send: Callable[..., Any] = getattr(self._connection(), method)
        left = max(deadline - _clock(), 0.001)
        options = {"client_timeout": left, "headers": self.settings.headers}
        try:
            answer = send(*arguments, **options)
        except InferenceServerException as failure:
            raise self.failure(failure, self.settings.timeout, deadline) from failure
        except ValueError:  # gRPC's word for a channel that another thread closed
            self.check_open()
            raise
        self.answered = True
        return answer

    def failure(
        self, failure: InferenceServerException, timeout: float, deadline: float
    ) -> MstkdClientError:
        """Put tritonclient's exception into one of the client's errors.

        Args:
            failure: What tritonclient raised.
            timeout: Seconds that the request had.
            deadline: When they are over, on the monotonic clock.
        """
        try:
            self.check_open()
        except ClientClosed as closed:  # by another thread, which made gRPC cancel
            return closed
        message = failure.message() or ""
        kind = classify(failure.status(), message)
        models = self._known_models() if kind is ModelNotReady else None
        return self.error(kind, message, timeout, deadline - _clock(), models)

    def _known_models(self) -> dict[str, str] | None:
        """Ask for the server's models; None where it does not tell."""
        options = {"client_timeout": self.settings.timeout, "headers": self.settings.headers}
        with suppress(InferenceServerException):
            return model_states(self._triton.get_model_repository_index(**options))
        return None
