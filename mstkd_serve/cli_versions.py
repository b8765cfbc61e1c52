"""The commands on the versions of a repository's models."""

from pathlib import Path
from typing import Annotated

import typer

from mstkd_serve.cli_console import console
from mstkd_serve.repository import Versions, add_version, promote, rollback

RepositoryArgument = Annotated[Path, typer.Argument(help="Folder of the model repository.")]
ModelArgument = Annotated[str, typer.Argument(help="Name of a model in it.")]


def add_version_command(
    repository: RepositoryArgument,
    model: ModelArgument,
    source: Annotated[Path, typer.Argument(help="ONNX file of the new version.")],
) -> None:
    """Add a version to a model; it is served once it is promoted."""
    number = add_version(repository, model, source)
    console.print(
        f"{model}: version {number}, proven. Serve it: "
        f"mstkd-serve repo promote {repository} {model} {number}"
    )


def promote_command(
    repository: RepositoryArgument,
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="The version to serve.")],
    beside: Annotated[
        bool, typer.Option("--beside", help="Keep what is served, to compare side by side.")
    ] = False,
) -> None:
    """Serve a version from the next (re)load on."""
    _show(model, promote(repository, model, version, beside=beside))


def rollback_command(repository: RepositoryArgument, model: ModelArgument) -> None:
    """Serve again what was served before the last promotion."""
    _show(model, rollback(repository, model))


def _show(model: str, versions: Versions) -> None:
    served = ", ".join(map(str, versions.served))
    console.print(
        f"{model}: serves version {served} of {', '.join(map(str, versions.present))}. A running "
        f"server takes it up with 'mstkd-serve models reload {model}'."
    )
