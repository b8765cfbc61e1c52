"""An asyncio connection to a server: the small questions, and one attempt of a request."""

import asyncio
import os
import time
from contextlib import suppress
from typing import Any, Final

import grpc

from mstkd_client._channel import Methods, channel_credentials, open_aio_channel
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


class AsyncServer(BaseServer):
    """A server, asked by coroutines. Another event loop or a forked process reconnects."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._credentials = channel_credentials(settings)  # a bad file is refused here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading = asyncio.Lock()
        self._methods: Methods | None = None

    def _connection(self) -> Methods:
        """Return the connection of this event loop; gRPC binds each to the loop it began in."""
        if self._methods is None or not self._is_at_home():
            self.connected()
            self._loop = asyncio.get_running_loop()
            self._reading = asyncio.Lock()
            self._methods = Methods(open_aio_channel(self.settings, self._credentials))
        return self._methods

    def _is_at_home(self) -> bool:
        return self._process == os.getpid() and self._loop is asyncio.get_running_loop()

    async def close(self) -> None:
        """Close the connection, once."""
        self.closed = True
        methods, self._methods = self._methods, None
        if methods is not None and self._is_at_home():
            if self.shared is not None:
                with suppress(grpc.RpcError):
                    await methods.small.SystemSharedMemoryUnregister(
                        self.forgetting(self.shared), **self.options(1.0)
                    )
            await methods.channel.close()

    async def send(self, ticket: Ticket, call: Call) -> Any:
        """Send one attempt of a request and return the server's message.

        Raises:
            ClientClosed: The client was closed.
            grpc.RpcError: The attempt failed.
        """
        self.check_open()
        message, options = self.request(ticket, call)
        try:
            return await self._connection().infer(message, **options)
        finally:
            self.release(ticket)

    async def share_memory(self, rows: int) -> None:
        """Offer the server memory for requests of up to `rows` faces, where the settings say so."""
        methods = self._connection()
        if (offered := self.offer(rows)) is None:
            return
        try:
            await methods.small.SystemSharedMemoryRegister(
                self.registration(offered), **self.options(self.settings.timeout)
            )
            self.shared = offered
        except grpc.RpcError:  # refused, or on another machine: the wire does as well
            pass
        finally:
            offered.forget_name()

    async def read_model(self, *, anew: bool = False) -> ServedModel:
        """Return the model's description: read once, and again only if asked to."""
        self.check_open()
        self._connection()
        async with self._reading:
            if self.served is None or anew:
                metadata = await self.ask("ModelMetadata")
                config = (await self.ask("ModelConfig")).config
                server = await self.ask("ServerMetadata")
                self.served = parse_model(metadata, config, str(server.version), self.model[1])
            return self.served

    async def info_of(self, version: str) -> ModelInfo:
        """Return the model's info, read anew where it does not know `version`."""
        served = await self.read_model()
        if version not in served.info.model_versions:
            served = await self.read_model(anew=True)
        return served.info

    async def count(self) -> ServerCount | None:
        """Return the model's running totals, where the settings ask for them."""
        if not self.settings.server_timing:
            return None
        return ServerCount.read(await self.ask("ModelStatistics"))

    async def ask(self, method: str, *, once: bool = False) -> Any:
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
                answer = await self._try(method, deadline)
            except MstkdClientError as error:
                wait = self.budget.wait_before_retry(type(error), attempt, _clock(), deadline)
                if once or wait is None:
                    raise
                await asyncio.sleep(wait)
            else:
                self.budget.answered()
                return answer

    async def _try(self, method: str, deadline: float) -> Any:
        self.check_open()
        send = getattr(self._connection().small, method)
        left = max(deadline - _clock(), 0.001)
        try:
            answer = await send(self.question(method), **self.options(left))
        except grpc.RpcError as failure:
            raise await self.failure(failure, self.settings.timeout, deadline) from failure
        self.answered = True
        return answer

    async def failure(self, failure: Any, timeout: float, deadline: float) -> MstkdClientError:
        """Put gRPC's exception into one of the client's errors.

        Args:
            failure: A `grpc.RpcError` with a status.
            timeout: Seconds that the request had.
            deadline: When they are over, on the monotonic clock.
        """
        try:
            self.check_open()
        except ClientClosed as closed:  # by another task, which made gRPC cancel
            return closed
        message = failure.details() or ""
        kind = classify(failure.code(), message)
        models = await self._known_models() if kind is ModelNotReady else None
        return self.error(kind, message, timeout, deadline - _clock(), models)

    async def _known_models(self) -> dict[str, str] | None:
        """Ask for the server's models; None where it does not tell."""
        options = self.options(self.settings.timeout)
        with suppress(grpc.RpcError):
            ask = self._connection().small.RepositoryIndex
            return model_states(await ask(self.question("RepositoryIndex"), **options))
        return None
