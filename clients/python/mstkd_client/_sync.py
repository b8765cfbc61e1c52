"""The blocking client of a server: it does what `Flight` says, and nothing more."""

import time
from collections.abc import Generator, Iterator
from queue import Empty, SimpleQueue
from typing import Final, Unpack

import grpc
import numpy as np
from numpy.typing import NDArray

from mstkd_client._base import BaseClient
from mstkd_client._blocking import BlockingFaceClient
from mstkd_client._flight import Deliver, Done, Flight, Pull, Send, Ticket, Wait
from mstkd_client._observe import Call
from mstkd_client._server_sync import Server
from mstkd_client._settings import ClientOptions
from mstkd_client._types import Health, ModelInfo
from mstkd_client._wire import Answer, chunks, decode

_clock: Final = time.monotonic
_Report = tuple[Ticket, grpc.Future]


class FaceClient(BaseClient, BlockingFaceClient):
    """Embeds and compares aligned faces on a Triton server. Threads may share one client.

    The constructor contacts nobody; the first call reads what the model is, once. A process that
    was forked makes a connection of its own when it first uses the client.

    Args:
        url: `host:port` of Triton's gRPC endpoint, without a scheme.
        options: As the attributes of `Settings`, which also tells of the environment variables
            and the file that they may come from.

    Raises:
        InvalidSettings: A setting is malformed.
        MissingExtra: A setting needs a package that is not installed.
    """

    def __init__(self, url: str | None = None, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, options)
        self._server = Server(self._settings)

    def close(self) -> None:
        """Close the connection. May be called again; other calls then raise ClientClosed."""
        self._server.close()

    def info(self) -> ModelInfo:
        """Tell what the server says about the model.

        Raises:
            ContractMismatch: The model is not one that MSTKD Serve built.
            MstkdClientError: Its other subclasses, for what goes wrong on the way.
        """
        return self._server.read_model().info

    def health(self) -> Health:
        """Ask a server whether it and the model are ready; nothing is tried twice.

        Raises:
            ServerUnavailable: No server answers.
            MstkdClientError: Its other subclasses, for what else goes wrong on the way.
        """
        server = self._server
        return Health(
            server_live=server.ask("ServerLive", once=True).live,
            server_ready=server.ask("ServerReady", once=True).ready,
            model_ready=server.ask("ModelReady", once=True).ready,
        )

    def _info_of(self, version: str) -> ModelInfo:
        return self._server.info_of(version)

    def _answers(
        self,
        blocks: Iterator[NDArray[np.uint8]],
        call: Call,
        timeout: float | None,
        batch_size: int | None = None,
    ) -> Generator[tuple[Ticket, Answer], None, None]:
        server = self._server
        flight = server.flight(timeout)
        served = server.read_model()
        rows = served.rows(self._settings.max_request_bytes, batch_size)
        requests = chunks(blocks, rows)
        reports: SimpleQueue[_Report] = SimpleQueue()
        under_way: dict[Ticket, grpc.Future] = {}

        def report(ticket: Ticket, future: grpc.Future) -> None:
            reports.put((ticket, future))

        server.share_memory(served.rows(self._settings.max_request_bytes, None))
        call.before = server.count()
        try:
            while True:
                match flight.step(_clock()):
                    case Pull():
                        flight.pulled(next(requests, None))
                    case Send(ticket):
                        under_way[ticket] = server.send(ticket, call, report)
                    case Wait(until):
                        if answered := _next_report(reports, until, call):
                            del under_way[answered[0]]
                            self._take(*answered, flight, served.info.embedding_dim)
                    case Deliver(ticket, answer):
                        call.answered(len(answer.vectors), ticket.round_trip, flight.retries)
                        delivered = _clock()
                        yield ticket, answer
                        call.exclude(_clock() - delivered)
                    case Done():
                        call.after = server.count()
                        return
        finally:
            for ticket, future in under_way.items():
                future.cancel()
                server.release(ticket)

    def _take(
        self, ticket: Ticket, future: grpc.Future, flight: Flight, embedding_dim: int
    ) -> None:
        """Hand what came of one attempt to the flight."""
        self._server.release(ticket)
        if (failure := future.exception()) is None:
            self._server.answered = True
            answer = decode(future.result(), len(ticket.faces), embedding_dim)
            flight.answered(ticket, answer, _clock())
        else:
            seconds = ticket.deadline - ticket.first_sent
            error = self._server.failure(failure, seconds, ticket.deadline)
            flight.failed(ticket, error, _clock())


def _next_report(
    reports: "SimpleQueue[_Report]", until: float | None, call: Call
) -> _Report | None:
    start = _clock()
    try:
        return reports.get(timeout=None if until is None else max(0.0, until - start))
    except Empty:
        return None
    finally:
        call.waited += _clock() - start
