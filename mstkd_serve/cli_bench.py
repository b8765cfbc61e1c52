"""`mstkd-serve bench`: measure, print, and write what was measured."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mstkd_serve.bench import BenchReport, Effort, Subject, bench, bench_url, write_report
from mstkd_serve.cli_console import CHECK_FAILED, console, errors
from mstkd_serve.cli_graph import ContractOption, preprocessing_of
from mstkd_serve.repository import CpuPrecision, Projection
from mstkd_serve.triton import Endpoint


def bench_command(
    student: Annotated[
        Path | None, typer.Option("--student", help="A recogniser's ONNX file.")
    ] = None,
    contract: ContractOption = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="A teacher's ONNX file, in the adaptor's order; repeat."),
    ] = None,
    adaptor: Annotated[
        Path | None, typer.Option("--adaptor", help="The adaptor's ONNX file: the ensemble too.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="A further served graph to run in process; repeat."),
    ] = None,
    precision: Annotated[
        CpuPrecision, typer.Option("--precision", help="Of the served models.")
    ] = CpuPrecision.AUTO,
    bounded_queue: Annotated[
        bool, typer.Option(help="Serve with the queue's usual bounds, or with none.")
    ] = True,
    url: Annotated[
        str | None, typer.Option("--url", help="A running server instead: its gRPC HOST:PORT.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Its model.")] = "student",
    tls_ca: Annotated[Path | None, typer.Option(help="PEM: who signs its certificate.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM: this side's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM: its private key.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that medians are over.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of one measurement.")] = 2.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for bench.json and bench.svg.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 where a bound was not held.")
    ] = False,
) -> None:
    """Measure engines, the served path, the ensemble and the client, interleaved."""
    if (student is None) == (url is None):
        raise typer.BadParameter("give --student MODEL.onnx, or --url of a running server")
    if bool(teacher) != (adaptor is not None):
        raise typer.BadParameter("--teacher and --adaptor go together")
    effort = Effort(rounds=rounds, seconds=seconds)
    with errors.status("") as status:
        if url is not None:
            report = bench_url(
                Endpoint(url, tls_ca, tls_cert, tls_key), model, effort, status.update
            )
        else:
            assert student is not None
            subject = Subject(
                student=student,
                preprocessing=preprocessing_of(contract, False, student),
                projection=Projection(teacher or (), adaptor) if adaptor else None,
                precision=precision,
                bounded=bounded_queue,
                also=tuple(also or ()),
            )
            report = bench(subject, effort, status.update)
    _show(report)
    if out is not None:
        for path in write_report(report, out):
            console.print(str(path))
    if check and not all(target.held for target in report.targets):
        raise typer.Exit(CHECK_FAILED)


def _show(report: BenchReport) -> None:
    if report.engines:
        console.print(_engines(report))
    if report.loads:
        console.print(_loads(report))
    if report.targets:
        table = Table("claim (median over rounds)", "measured", "bound", "held")
        for target in report.targets:
            bound = f"{'>=' if target.at_least else '<='} {target.bound:g}"
            value = f"{target.value:.4f}" if target.bound > 0.99 else f"{target.value:.2f}"
            table.add_row(target.claim, value, bound, "yes" if target.held else "NO")
        console.print(table)
    for line in (*report.served, *report.notes):
        console.print(line)
    if report.server_mib is not None:
        console.print(f"The server and its models took {report.server_mib:.0f} MiB.")
    if report.peer:
        console.print(f"Ratios of engines are against {report.peer} on ONNX Runtime fp32.")
    console.print(f"{report.subject}, {report.rounds} rounds. {report.machine}")


def _engines(report: BenchReport) -> Table:
    batches = list(report.engines[0].milliseconds)
    table = Table("in process", *(f"batch {size}, faces/s" for size in batches), "mean cosine")
    for engine in report.engines:
        cells = []
        for size in batches:
            speed = f"{size / engine.milliseconds[size] * 1e3:.1f}"
            cells.append(f"{speed} ({engine.ratio[size]:.2f}x)" if engine.ratio else speed)
        table.add_row(engine.name, *cells, f"{engine.mean_cosine:.5f}")
    return table


def _loads(report: BenchReport) -> Table:
    table = Table(
        "callers x faces", "faces/s", "p50 ms", "p90", "p99", "batch", "queue ms", "failed"
    )
    for point in report.loads:
        load = f"{point.concurrency} x {point.batch}"
        if point.offered is not None:
            load = f"Poisson {point.offered:.0f}/s"
        table.add_row(
            load,
            f"{point.faces_per_second:.1f}",
            *(f"{value:.0f}" for value in (point.p50_ms, point.p90_ms, point.p99_ms)),
            "" if point.mean_batch is None else f"{point.mean_batch:.1f}",
            "" if point.queue_ms is None else f"{point.queue_ms:.0f}",
            str(point.failures),
        )
    return table
