"""The asyncio client of a server: it does what `Flight` says, and nothing more."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self, Unpack

import grpc

from mstkd_client._answers import check_same_contract, check_same_version, joined, one_batch
from mstkd_client._base import BaseClient
from mstkd_client._flight import Deliver, Done, Flight, Pull, Send, Ticket, Wait
from mstkd_client._images import read_pair, read_pairs
from mstkd_client._observe import Call
from mstkd_client._scores import PairScores
from mstkd_client._server_aio import AsyncServer
from mstkd_client._settings import ClientOptions
from mstkd_client._similarity import similarity
from mstkd_client._source import Blocks, Requests, read
from mstkd_client._types import Embeddings, Faces, Health, ModelInfo, OneFace
from mstkd_client._verification import Verification, Verifications
from mstkd_client._wire import Answer, decode

_clock: Final = time.monotonic
_Report = tuple[Ticket | None, Any, Exception | None]
"""Of a sent ticket: the server's result or failure. Of no ticket: the next request or failure."""


class AsyncFaceClient(BaseClient):
    """Embeds and compares aligned faces on a Triton server, for asyncio.

    The methods are those of `FaceClient`, awaited. The constructor contacts nobody. A client used
    in another event loop, or in a process that was forked, makes a new connection there.

    Args:
        url: `host:port` of Triton's gRPC endpoint, without a scheme.
        options: As the attributes of `Settings`, which also tells of the environment variables
            and the file that they may come from.

    Raises:
        InvalidSettings: A setting is malformed.
        MissingExtra: A setting needs a package that is not installed.
    """

    similarity = staticmethod(similarity)

    def __init__(self, url: str | None = None, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, options)
        self._server = AsyncServer(self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. May be called again; other calls then raise ClientClosed."""
        await self._server.close()

    async def info(self) -> ModelInfo:
        """Tell what the server says about the model; see `FaceClient.info`."""
        return (await self._server.read_model()).info

    async def health(self) -> Health:
        """Ask whether server and model are ready; see `FaceClient.health`."""
        server = self._server
        return Health(
            server_live=(await server.ask("ServerLive", once=True)).live,
            server_ready=(await server.ask("ServerReady", once=True)).ready,
            model_ready=(await server.ask("ModelReady", once=True)).ready,
        )

    async def embed(
        self,
        faces: Faces | AsyncIterable[OneFace],
        *,
        color: str = "rgb",
        timeout: float | None = None,
    ) -> Embeddings:
        """Embed aligned faces; see `FaceClient.embed`. `faces` may be an async iterable."""
        with self._observed("embed") as call:
            answering = self._answers(read(faces, color), call, timeout)
            answers = [answer async for _, answer in answering]
            info = await self._server.info_of(check_same_version(answers, call.model_name))
            return joined(answers, info, call)

    async def embed_stream(
        self,
        faces: Faces | AsyncIterable[OneFace],
        *,
        color: str = "rgb",
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Embeddings]:
        """Embed faces as they come; see `FaceClient.embed_stream`.

        `faces` may be an async iterable. Answers are yielded as soon as they are there, also
        while the next face is awaited.
        """
        first: ModelInfo | None = None
        with self._observed("embed_stream") as call:
            blocks = read(faces, color)
            async with aclosing(self._answers(blocks, call, timeout, batch_size)) as answers:
                async for ticket, answer in answers:
                    info = await self._server.info_of(answer.model_version)
                    check_same_contract(first or info, info)
                    first = first or info
                    yield one_batch(ticket, answer, info)

    async def verify(
        self, first: OneFace, second: OneFace, *, color: str = "rgb", timeout: float | None = None
    ) -> Verification:
        """Compare two faces; see `FaceClient.verify`."""
        with self._observed("verify") as call:
            pair = await asyncio.to_thread(read_pair, first, second, color)
            return (await self._verified([pair], call, timeout))[0]

    async def verify_many(
        self,
        pairs: Iterable[tuple[OneFace, OneFace]],
        *,
        color: str = "rgb",
        timeout: float | None = None,
    ) -> Verifications:
        """Compare many pairs of faces; see `FaceClient.verify_many`."""
        with self._observed("verify_many") as call:
            return await self._verified(read_pairs(pairs, color), call, timeout)

    async def _verified(self, blocks: Blocks, call: Call, timeout: float | None) -> Verifications:
        scores = PairScores(call.model_name)
        async for _, answer in self._answers(blocks, call, timeout):
            scores.take(answer)
        return scores.verifications(await self._server.info_of(scores.version), call.timing())

    async def _answers(
        self, blocks: Blocks, call: Call, timeout: float | None, batch_size: int | None = None
    ) -> AsyncGenerator[tuple[Ticket, Answer], None]:
        server = self._server
        flight = server.flight(timeout)
        served = await server.read_model()
        rows = served.rows(self._settings.max_request_bytes, batch_size)
        requests = Requests(blocks, rows)
        reports: asyncio.Queue[_Report] = asyncio.Queue()
        tasks: set[asyncio.Task[None]] = set()

        def start(ticket: Ticket | None, work: Coroutine[Any, Any, Any]) -> None:
            task = asyncio.create_task(_report(ticket, work, reports))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await server.share_memory(served.rows(self._settings.max_request_bytes, None))
        call.before = await server.count()
        try:
            while True:
                match flight.step(_clock()):
                    case Pull():
                        start(None, requests.next())
                    case Send(ticket):
                        start(ticket, server.send(ticket, call))
                    case Wait(until):
                        if report := await _next_report(reports, until, call):
                            await self._take(report, flight, served.info.embedding_dim)
                    case Deliver(ticket, answer):
                        call.answered(len(answer.vectors), ticket.round_trip, flight.retries)
                        delivered = _clock()
                        yield ticket, answer
                        call.exclude(_clock() - delivered)
                    case Done():
                        call.after = await server.count()
                        return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, report: _Report, flight: Flight, embedding_dim: int) -> None:
        """Hand one report to the flight."""
        ticket, result, failure = report
        if ticket is None:
            if failure is not None:
                raise failure
            flight.pulled(result)
        elif failure is None:
            self._server.answered = True
            answer = decode(result, len(ticket.faces), embedding_dim)
            flight.answered(ticket, answer, _clock())
        elif isinstance(failure, grpc.RpcError):
            seconds = ticket.deadline - ticket.first_sent
            error = await self._server.failure(failure, seconds, ticket.deadline)
            flight.failed(ticket, error, _clock())
        else:
            raise failure


async def _report(
    ticket: Ticket | None, work: Coroutine[Any, Any, Any], reports: "asyncio.Queue[_Report]"
) -> None:
    try:
        reports.put_nowait((ticket, await work, None))
    except Exception as failure:  # it is raised where the reports are read
        reports.put_nowait((ticket, None, failure))


async def _next_report(
    reports: "asyncio.Queue[_Report]", until: float | None, call: Call
) -> _Report | None:
    start = _clock()
    try:
        async with asyncio.timeout(None if until is None else max(0.0, until - start)):
            return await reports.get()
    except TimeoutError:
        return None
    finally:
        call.waited += _clock() - start
