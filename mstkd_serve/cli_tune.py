"""`mstkd-serve tune`: measure ways of serving a model and print the best one's options."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mstkd_serve.bench.tune import Tuning, Workload, tune
from mstkd_serve.cli_console import console, errors
from mstkd_serve.cli_graph import ContractOption, preprocessing_of
from mstkd_serve.files import atomic_path
from mstkd_serve.repository import CpuPrecision, ServingOptions


def tune_command(
    student: Annotated[Path, typer.Option("--student", help="A recogniser's ONNX file.")],
    contract: ContractOption = None,
    callers: Annotated[int, typer.Option(min=1, help="Requests on the way at a time.")] = 16,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Faces a request.")] = 1,
    longest_ms: Annotated[
        float, typer.Option(min=1, help="Longest 99th percentile of latency, milliseconds.")
    ] = 1000.0,
    precision: Annotated[
        CpuPrecision, typer.Option("--precision", help="Of the served model.")
    ] = CpuPrecision.AUTO,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that medians are over.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of one measurement.")] = 2.0,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write.")] = None,
) -> None:
    """Choose instances, queue delay, batch and queue size by measurement on this machine."""
    with errors.status("") as status:
        found = tune(
            student,
            preprocessing_of(contract, False, student),
            Workload(callers=callers, batch=batch, longest_ms=longest_ms),
            ServingOptions(cpu_precision=precision),
            rounds=rounds,
            seconds=seconds,
            progress=status.update,
        )
    _show(found, rounds)
    options = {"--cpu-precision": precision.value} | found.options()
    console.print("repo build " + " ".join(f"{name} {value}" for name, value in options.items()))
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _show(found: Tuning, rounds: int) -> None:
    table = Table(
        "", "instances", "delay us", "batch", "queue", "faces/s", "p50 ms", "p99 ms", "run at once"
    )
    for each in found.candidates:
        table.add_row(
            "*" if each == found.best else "",
            str(each.instances),
            str(each.max_queue_delay_us),
            str(each.max_batch_size),
            "bounded" if each.bounded else "free",
            f"{each.faces_per_second:.1f}",
            f"{each.p50_ms:.0f}",
            f"{each.p99_ms:.0f}",
            f"{each.mean_batch:.1f}",
        )
    console.print(table)
    if not found.kept:
        console.print(
            f"None keeps a p99 of {found.workload.longest_ms:g} ms; * comes nearest. Fewer callers "
            "a server, more cores or a smaller model would."
        )
    console.print(
        f"{found.workload.callers} callers with {found.workload.batch} faces each, {rounds} "
        f"rounds. {found.machine}"
    )
