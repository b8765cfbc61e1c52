"""The command `mstkd-train import`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mstkd_training.importing import (
    PublishedFormat,
    Role,
    Source,
    import_adaptor,
    import_backbone,
)
from mstkd_training.progress import ConsoleReporter
from mstkd_training.published import some


def import_command(
    file: Annotated[Path, typer.Argument(help="The published checkpoint (.pth, .pt).")],
    format: Annotated[PublishedFormat, typer.Option(help="Whose checkpoint it is.")],
    role: Annotated[Role, typer.Option(help="What it becomes.")],
    network: Annotated[
        str,
        typer.Option(help="iresnet18, 34, 50 or 100, with -se where it has SE; sl, dul, dldpo."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the artifacts; not a pipeline's.")],
    group: Annotated[
        str | None, typer.Option(help="The group that a teacher was trained on.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the artifact; teacher_<group>, student or adaptor if not said."),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Teacher folder of an adaptor, in its order; repeatable."),
    ] = None,
    adaptor: Annotated[
        Path | None, typer.Option(help="Adaptor folder that an MST-KD student was taught by.")
    ] = None,
) -> None:
    """Make an artifact from published weights; nothing in the file is run.

    The new artifact is exported and served like one that was trained here.
    """
    source = Source(file, format, network)
    if role == "adaptor":
        if group or adaptor:
            raise typer.BadParameter("--group and --adaptor do not go with --role adaptor")
        imported = import_adaptor(source, out, teachers=teacher or (), name=name)
    else:
        if teacher:
            raise typer.BadParameter("--teacher goes with --role adaptor only")
        imported = import_backbone(source, out, role=role, group=group, name=name, adaptor=adaptor)
    manifest = imported.artifact.manifest
    ConsoleReporter(Console()).message(
        f"{imported.artifact.path}: {manifest.kind} {network}, {manifest.embedding_dim}-d. "
        f"Missing in the file: {some(imported.missing)}. Left over: {some(imported.left_over)}."
    )
