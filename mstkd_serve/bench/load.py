"""Put load on a model of a running server, over gRPC, and measure what comes back.

A closed loop has a fixed number of requests on the way: each answer sends the next, so the server
sets the pace and the throughput is its capacity. An open loop sends at Poisson-distributed times
whether or not answers came, as many independent callers do; its latency counts from the time a
request was due, so that a slow server cannot hide the requests that it delays.
"""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from mstkd_serve.errors import ServerError
from mstkd_serve.graph import INPUT_NAME, OUTPUT_NAME

_WARM_SHARE = 0.2
_PATIENCE = 60.0


class LoadPoint(BaseModel):
    """What one load on one model saw.

    Attributes:
        model: Name of the model.
        loop: `closed` or `open`.
        batch: Faces a request.
        concurrency: Requests on the way at a time, in a closed loop.
        offered: Faces that were sent each second, in an open loop.
        faces_per_second: Faces that were answered each second.
        p50_ms: Median latency of a request, milliseconds.
        p90_ms: Its 90th percentile.
        p99_ms: Its 99th percentile.
        requests: Requests that were answered.
        failures: Requests that failed.
        mean_batch: Mean number of faces that the server ran at once; None for an ensemble.
        queue_ms: Mean time that a request waited in the server.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    loop: Literal["closed", "open"]
    batch: int
    concurrency: int | None = None
    offered: float | None = None
    faces_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    requests: int
    failures: int
    mean_batch: float | None
    queue_ms: float | None


class _Answer(NamedTuple):
    due: float
    finished: float
    failed: bool


@dataclass(frozen=True)
class _Sender:
    """Sends one prepared request again and again; answers come back through a queue."""

    client: InferenceServerClient
    model: str
    request: InferInput
    answers: "queue.SimpleQueue[_Answer]"

    def send(self, due: float) -> None:
        def done(result: Any, error: Exception | None) -> None:
            self.answers.put(_Answer(due, time.perf_counter(), error is not None))

        output = InferRequestedOutput(OUTPUT_NAME)
        self.client.async_infer(self.model, [self.request], done, outputs=[output])

    def receive(self) -> _Answer:
        try:
            return self.answers.get(timeout=_PATIENCE)
        except queue.Empty:
            raise ServerError(
                f"{self.model}: no answer within {_PATIENCE:g} s. Ask for less load."
            ) from None


def closed_loop(
    client: InferenceServerClient, model: str, *, batch: int, concurrency: int, seconds: float
) -> LoadPoint:
    """Keep `concurrency` requests of `batch` faces on the way for some seconds.

    Raises:
        ServerError: The server does not answer.
    """
    sender = _sender(client, model, batch)
    _pump(sender, concurrency, _WARM_SHARE * seconds)
    before = _statistics(client, model)
    started = time.perf_counter()
    answers = _pump(sender, concurrency, seconds)
    took = max(answer.finished for answer in answers) - started
    return _point(
        sender, answers, took, before, loop="closed", batch=batch, concurrency=concurrency
    )


def _pump(sender: _Sender, concurrency: int, seconds: float) -> list[_Answer]:
    """Send for some seconds, then wait for what is under way; return every answer.

    Batches answer in bursts, so that a window that cuts bursts in two would count wrongly.
    """
    end = time.perf_counter() + seconds
    for _ in range(concurrency):
        sender.send(time.perf_counter())
    answers = []
    while time.perf_counter() < end:
        answers.append(sender.receive())
        sender.send(time.perf_counter())
    return [*answers, *(sender.receive() for _ in range(concurrency))]


def open_loop(
    client: InferenceServerClient,
    model: str,
    *,
    batch: int,
    offered: float,
    seconds: float,
    seed: int = 0,
) -> LoadPoint:
    """Send `offered` faces each second, in requests of `batch` faces at Poisson arrivals.

    Raises:
        ServerError: The server does not answer.
    """
    sender = _sender(client, model, batch)
    before = _statistics(client, model)
    gaps = np.random.default_rng(seed).exponential(batch / offered, int(4 * seconds * offered) + 8)
    arrivals = np.cumsum(gaps)
    arrivals = arrivals[arrivals < (1 + _WARM_SHARE) * seconds]
    start = time.perf_counter()
    for arrival in arrivals:
        time.sleep(max(0.0, start + arrival - time.perf_counter()))
        sender.send(start + arrival)
    seen = [sender.receive() for _ in arrivals]
    begin = start + _WARM_SHARE * seconds
    counted = [answer for answer in seen if answer.due >= begin]
    took = max([answer.finished for answer in counted], default=begin + seconds) - begin
    return _point(
        sender, counted, max(took, seconds), before, loop="open", batch=batch, offered=offered
    )


def _sender(client: InferenceServerClient, model: str, batch: int) -> _Sender:
    faces = np.random.default_rng(0).integers(0, 256, (batch, 112, 112, 3), np.uint8)
    request = InferInput(INPUT_NAME, list(faces.shape), "UINT8")
    request.set_data_from_numpy(faces)
    return _Sender(client, model, request, queue.SimpleQueue())


def _point(
    sender: _Sender,
    answers: list[_Answer],
    seconds: float,
    before: "_Counts",
    **load: Any,
) -> LoadPoint:
    good = [answer for answer in answers if not answer.failed]
    milliseconds = [(answer.finished - answer.due) * 1e3 for answer in good] or [float("nan")]
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    after = _statistics(sender.client, sender.model)
    executions = after.executions - before.executions
    requests = after.requests - before.requests
    return LoadPoint(
        model=sender.model,
        faces_per_second=len(good) * load["batch"] / seconds,
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        requests=len(good),
        failures=len(answers) - len(good),
        mean_batch=(after.faces - before.faces) / executions if executions else None,
        queue_ms=(after.queue_ns - before.queue_ns) / requests / 1e6 if requests else None,
        **load,
    )


class _Counts(NamedTuple):
    """What Triton has counted of a model, over all its versions."""

    requests: int
    faces: int
    executions: int
    queue_ns: int


def _statistics(client: InferenceServerClient, model: str) -> _Counts:
    versions = said(lambda: client.get_inference_statistics(model).model_stats)
    return _Counts(
        sum(each.inference_stats.success.count for each in versions),
        sum(each.inference_count for each in versions),
        sum(each.execution_count for each in versions),
        sum(each.inference_stats.queue.ns for each in versions),
    )


def said(ask: Callable[[], Any]) -> Any:
    """Ask a server, and put its refusal into this package's words.

    Raises:
        ServerError: It is not there or refuses.
    """
    try:
        return ask()
    except InferenceServerException as error:
        raise ServerError(f"the server does not answer ({error.message()}).") from error
