"""The commands on one ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from mstkd_serve.cli_console import console
from mstkd_serve.contract import Preprocessing, load_preprocessing
from mstkd_serve.graph import build_served_graph, read_contract

ContractOption = Annotated[
    str | None,
    typer.Option(
        "--contract",
        help="How the model wants its pixels: a name (arcface) or a JSON file with mean and std "
        "on the 0 to 255 scale. Only for files that carry no contract.",
    ),
]
FlipOption = Annotated[
    bool,
    typer.Option("--flip", help="Add the mirror image's embedding before normalising."),
]


def graph_command(
    source: Annotated[Path, typer.Argument(help="A recogniser's ONNX file.")],
    out: Annotated[Path, typer.Option("--out", help="The served graph to write.")],
    contract: ContractOption = None,
    flip: FlipOption = False,
) -> None:
    """Make the served graph of a recogniser and prove that both agree."""
    written = build_served_graph(
        source, out, preprocessing=preprocessing_of(contract, flip, source)
    )
    console.print(f"{out}: contract {written.id}, {written.embedding_dim}-d, proven.")


def preprocessing_of(contract: str | None, flip: bool, source: Path) -> Preprocessing | None:
    """Return what the options say of the contract, or None where they say nothing."""
    stated = load_preprocessing(contract) if contract else None
    if not flip:
        return stated
    base = stated or read_contract(source)
    if base is None:
        return None  # the graph builder names the file and the remedy
    fields = {name: getattr(base, name) for name in Preprocessing.model_fields}
    return Preprocessing(**fields | {"flip": True})
