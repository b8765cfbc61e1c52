"""The whole benchmark: what is measured, in which order."""

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from mstkd_serve.bench.engines import ratio
from mstkd_serve.bench.ensemble import measure_ensemble
from mstkd_serve.bench.load import LoadPoint, closed_loop, open_loop, said
from mstkd_serve.bench.machine import describe_machine, resident_mib
from mstkd_serve.bench.peers import cpu_seconds
from mstkd_serve.bench.results import BenchReport
from mstkd_serve.bench.rounds import in_turn
from mstkd_serve.bench.session import UNBOUNDED, Effort, Progress, Session, Subject
from mstkd_serve.bench.small_model import write_small_model
from mstkd_serve.bench.startup import seconds_to_ready
from mstkd_serve.bench.student import measure_student
from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import EngineError
from mstkd_serve.repository import (
    STUDENT,
    Projection,
    ServingOptions,
    Target,
    build_repository,
)
from mstkd_serve.triton import Endpoint, Ports, TritonServer, locate

_SHARES_OF_CAPACITY = (0.5, 0.8, 0.95)
_CLIENT_ROWS = (8, 32)
_MOST_FACES = 128
"""On the way at a time; more only wait."""


def bench(subject: Subject, effort: Effort, progress: Progress) -> BenchReport:
    """Measure a model in process, served, as an ensemble, and what the client costs.

    Args:
        subject: What to measure.
        effort: How thoroughly.
        progress: Called with a line about what is being measured.

    Raises:
        GraphError: A model cannot be served.
        ContractError: Nothing says how the model wants its pixels.
        ServerError: There is no tritonserver, or it does not become ready.
    """
    report = BenchReport(
        machine=describe_machine(), subject=subject.student.name, rounds=effort.rounds
    )
    installation = locate()
    with tempfile.TemporaryDirectory(prefix="mstkd-bench-") as folder:
        session = Session(subject, effort, report, progress, Path(folder) / "repository")
        progress("building the repository")
        _build(subject, session.repository, subject.projection)
        alone = session.repository
        if subject.projection is not None:
            alone = Path(folder) / "student-alone"
            _build(subject, alone, None)
        _measure_starts(session, alone)
        with (
            TritonServer(installation, session.repository, Ports(0, 0, 0)) as server,
            contextlib.closing(InferenceServerClient(server.url)) as client,
        ):
            server.wait_ready(300)
            report.served = server.runtimes()
            measure_student(session, client)
            if subject.projection is not None:
                measure_ensemble(session, client)
            report.loads += _sweep(client, STUDENT, effort.seconds, progress)
            assert server.pid is not None
            report.server_mib = resident_mib(server.pid)
        if effort.client_rounds:
            _measure_client(session, Path(folder))
    return report


def bench_url(endpoint: Endpoint, model: str, effort: Effort, progress: Progress) -> BenchReport:
    """Measure a model of a running server by a sweep of loads.

    Args:
        endpoint: The server.
        model: Name of a model that embeds faces.
        effort: How thoroughly; only its seconds count.
        progress: Called with a line about what is being measured.

    Raises:
        ServerError: The server does not answer, or has no such model.
    """
    report = BenchReport(machine=describe_machine(), subject=f"{model} at {endpoint.url}", rounds=1)
    with contextlib.closing(endpoint.connect()) as client:
        report.loads += _sweep(client, model, effort.seconds, progress)
    report.notes.append("Processor and versions are the caller's, not the server's.")
    return report


def _build(subject: Subject, out: Path, projection: Projection | None) -> None:
    build_repository(
        {STUDENT: subject.student},
        out,
        target=Target.PYTHON,
        preprocessing=subject.preprocessing,
        options=ServingOptions(
            cpu_precision=subject.precision, **({} if subject.bounded else UNBOUNDED)
        ),
        projection=projection,
    )


def _measure_starts(session: Session, alone: Path) -> None:
    """Start a repository with the student alone; one with teachers and adaptor as well, once."""
    report, effort = session.report, session.effort
    session.progress("a first start, which fills the file cache")
    seconds_to_ready(alone)
    for index in range(effort.starts):
        session.progress(f"start {index + 1} of {effort.starts}")
        report.ready_seconds.append(seconds_to_ready(alone))
    claim = "seconds from 'mstkd-serve up' to ready, warm file cache"
    session.claim(claim, statistics.median(report.ready_seconds), 5.0, at_least=False)
    if alone != session.repository:
        session.progress("a start of the ensemble mode")
        seconds = seconds_to_ready(session.repository)
        report.notes.append(f"With teachers, adaptor and ensemble it is ready in {seconds:.1f} s.")


def _sweep(
    client: InferenceServerClient, model: str, seconds: float, progress: Progress
) -> Iterator[LoadPoint]:
    """Measure batch sizes and numbers of callers, then Poisson arrivals below the capacity."""
    config = said(lambda: client.get_model_config(model)).config
    capacity = 0.0
    for batch in (1, 8, 32):
        if batch > max(config.max_batch_size, 1):
            continue
        for callers in (1, 4, 16):
            if batch * callers > _MOST_FACES:
                continue
            progress(f"{model}: batch {batch}, {callers} callers")
            point = closed_loop(client, model, batch=batch, concurrency=callers, seconds=seconds)
            capacity = max(capacity, point.faces_per_second) if batch == 1 else capacity
            yield point
    for share in _SHARES_OF_CAPACITY:
        progress(f"{model}: {share:.0%} of its capacity, Poisson arrivals")
        offered = max(share * capacity, 0.1)
        yield open_loop(client, model, batch=1, offered=offered, seconds=3 * seconds)


def _measure_client(session: Session, folder: Path) -> None:
    """Measure what our client costs its caller, against bare tritonclient calls."""
    source = folder / "small.onnx"
    write_small_model(source)
    for rows in _CLIENT_ROWS:
        repository = folder / f"small-{rows}"
        build_repository(
            {STUDENT: source},
            repository,
            target=Target.PYTHON,
            preprocessing=Preprocessing(),
            options=ServingOptions(max_batch_size=rows),
        )
        with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
            server.wait_ready(120)
            ways = {
                way: partial(cpu_seconds, way, server.url, rows)
                for way in ("client", "tritonclient")
            }
            try:
                measured = in_turn(ways, session.effort.client_rounds, session.progress)
            except EngineError as error:
                session.report.notes.append(str(error))
                return
        value = ratio(measured["client"], measured["tritonclient"])
        session.report.client_cpu_ratio[rows] = value
        claim = f"CPU time of mstkd_client against tritonclient, batches of {rows}"
        session.claim(claim, value, 1.15, at_least=False)
