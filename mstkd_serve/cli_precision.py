"""`mstkd-serve precision`: what this machine computes in, and graphs in fewer bits."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from mstkd_serve.cli_console import console
from mstkd_serve.engine import bf16_instructions
from mstkd_serve.fairness.pair_lists import read_pair_list
from mstkd_serve.precision import Bounds, Precision, convert, face_images
from mstkd_serve.precision.gate import DEFAULT_MEAN_COSINE

precision_app = typer.Typer(no_args_is_help=True, help="Reduced precision, behind a gate.")


@precision_app.command("show")
def precision_show() -> None:
    """Show what '--cpu-precision auto' would choose on this machine."""
    names = {"amx": "AMX", "avx512": "AVX512-BF16"}
    found = bf16_instructions()
    if found:
        console.print(f"bf16: this CPU has {names[found]}; OpenVINO computes in bfloat16.")
    else:
        console.print("fp32: this CPU has neither AMX nor AVX512-BF16.")


@precision_app.command("convert")
def precision_convert(
    model: Annotated[Path, typer.Argument(help="An fp32 served graph.")],
    to: Annotated[Precision, typer.Option("--to", help="fp16, bf16 (weights) or int8.")],
    out: Annotated[Path, typer.Option("--out", help="The graph to write.")],
    pairs: Annotated[
        Path, typer.Option("--pairs", help="Pairs for the gate, as 'evaluate pairs' takes them.")
    ],
    faces: Annotated[
        Path | None, typer.Option("--faces", help="Folder of aligned faces to calibrate int8 on.")
    ] = None,
    most_faces: Annotated[int, typer.Option(min=1, help="Most faces to calibrate on.")] = 256,
    mean_cosine: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Least mean cosine; 0.9999, 0.9995, 0.99 by default."),
    ] = None,
    accuracy_change: Annotated[
        float, typer.Option(min=0, help="Most that a group's accuracy may fall, points.")
    ] = 0.5,
    std_change: Annotated[
        float, typer.Option(min=0, help="Most that STD over groups may rise, points.")
    ] = 0.25,
) -> None:
    """Write a reduced copy of a served graph, unless it loses too much."""
    bounds = Bounds(
        mean_cosine=DEFAULT_MEAN_COSINE[to.value] if mean_cosine is None else mean_cosine,
        accuracy_change=accuracy_change,
        std_change=std_change,
    )
    images = face_images(faces, most_faces) if faces is not None else []
    listed = read_pair_list(pairs)
    with Progress(console=console) as bar:
        task = bar.add_task("comparing with fp32", total=None)
        found = convert(
            model,
            out,
            to,
            listed,
            source=str(pairs),
            calibration_images=images,
            bounds=bounds,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"{out}: {to.value}. {found}.")
