"""The commands on a Triton model repository."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mstkd_serve.cli_console import console
from mstkd_serve.cli_graph import ContractOption, FlipOption, preprocessing_of
from mstkd_serve.repository import (
    CpuPrecision,
    Device,
    GpuPrecision,
    Projection,
    ServingOptions,
    Target,
    TimeoutAction,
    build_repository,
    check_repository,
)


class EnsembleAs(StrEnum):
    """How the teacher-projection path is served."""

    GRAPH = "graph"
    STEPS = "steps"


repo_app = typer.Typer(no_args_is_help=True, help="Build and check Triton model repositories.")


@repo_app.command("build")
def repo_build(
    student: Annotated[Path, typer.Option("--student", help="ONNX file served as 'student'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the model repository.")],
    target: Annotated[Target, typer.Option("--target", help="Triton's backend.")] = Target.PYTHON,
    device: Annotated[Device, typer.Option(help="gpu never falls back to cpu.")] = Device.CPU,
    contract: ContractOption = None,
    flip: FlipOption = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A further model as NAME=FILE.onnx; may be repeated."),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="A teacher's ONNX file, in the adaptor's order; repeat."),
    ] = None,
    adaptor: Annotated[
        Path | None,
        typer.Option("--adaptor", help="The adaptor's ONNX file: with teachers, adds 'ensemble'."),
    ] = None,
    ensemble_as: Annotated[
        EnsembleAs, typer.Option(help="One fused graph, or steps from model to model.")
    ] = EnsembleAs.GRAPH,
    verify: Annotated[bool, typer.Option(help="Add 'verify' (and 'verify_ensemble').")] = True,
    max_batch_size: Annotated[int, typer.Option(help="Largest batch.")] = 32,
    preferred_batch_size: Annotated[
        list[int] | None, typer.Option(help="Batch worth waiting for; none is best. Repeatable.")
    ] = None,
    max_queue_size: Annotated[int, typer.Option(help="Most requests that wait; 0: any.")] = 256,
    queue_timeout_ms: Annotated[
        int, typer.Option(help="Longest wait in the queue; 0: any.")
    ] = 60_000,
    timeout_action: Annotated[
        TimeoutAction, typer.Option(help="What becomes of who waited longer.")
    ] = TimeoutAction.REJECT,
    max_queue_delay_us: Annotated[int, typer.Option(help="Wait for companions, in us.")] = 0,
    instances: Annotated[int, typer.Option(help="Copies of each model.")] = 1,
    intra_op_threads: Annotated[int, typer.Option(help="Threads a copy; 0: share cores.")] = 0,
    max_request_bytes: Annotated[int, typer.Option(help="Most bytes a request; 0: any.")] = 0,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="ONNX Runtime hands its graph to TensorRT.")
    ] = False,
    cpu_precision: Annotated[
        CpuPrecision, typer.Option(help="Of the python target; auto: bf16 where the CPU has it.")
    ] = CpuPrecision.FP32,
    gpu_precision: Annotated[
        GpuPrecision, typer.Option(help="Precision of TensorRT.")
    ] = GpuPrecision.FP16,
    engine_cache: Annotated[
        str, typer.Option(help="Folder on the server for TensorRT's engines.")
    ] = "/var/cache/mstkd/tensorrt",
    response_cache: Annotated[
        bool, typer.Option("--response-cache", help="Triton remembers answers. Biometric data!")
    ] = False,
    weights_license: Annotated[str, typer.Option(help="Licence of the weights, as text.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace --out.")] = False,
) -> None:
    """Write a Triton model repository from ONNX files."""
    if bool(teacher) != (adaptor is not None):
        raise typer.BadParameter("--teacher and --adaptor go together")
    models = {"student": student} | dict(_named_file(text) for text in model or [])
    options = ServingOptions(
        device=device,
        max_batch_size=max_batch_size,
        preferred_batch_sizes=tuple(preferred_batch_size or ()),
        max_queue_size=max_queue_size,
        queue_timeout_ms=queue_timeout_ms,
        timeout_action=timeout_action,
        max_queue_delay_us=max_queue_delay_us,
        instances=instances,
        intra_op_threads=intra_op_threads,
        max_request_bytes=max_request_bytes,
        tensorrt=tensorrt,
        cpu_precision=cpu_precision,
        gpu_precision=gpu_precision,
        engine_cache=engine_cache,
        response_cache=response_cache,
        weights_license=weights_license,
    )
    contracts = build_repository(
        models,
        out,
        target=target,
        preprocessing=preprocessing_of(contract, flip, student),
        options=options,
        projection=Projection(teacher or (), adaptor, ensemble_as is EnsembleAs.STEPS)
        if adaptor
        else None,
        verify=verify,
        replace=replace,
    )
    for name, written in contracts.items():
        console.print(f"{name}: contract {written.id}, {written.embedding_dim}-d, proven.")
    console.print(f"Model repository for the {target.value} target: {out}")


@repo_app.command("check")
def repo_check(
    folder: Annotated[Path, typer.Argument(help="Folder of the model repository.")],
) -> None:
    """Check that a model repository is complete and agrees with itself."""
    for name, contract in check_repository(folder).items():
        console.print(f"{name}: contract {contract.id}, {contract.embedding_dim}-d, in order.")


def _named_file(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise typer.BadParameter(f"--model {text!r}: write NAME=FILE.onnx")
    return name, Path(path)
