"""The commands on a running server's models: examine, list, load, reload, unload."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from mstkd_serve.cli_console import CHECK_FAILED, console
from mstkd_serve.triton import (
    ControlClosed,
    Endpoint,
    examine,
    list_models,
    load_model,
    read_admin_key,
    ready_among,
    unload_model,
)

_USUAL_NAMES: Final = ("student", "ensemble", "verify", "verify_ensemble")
UrlOption = Annotated[str, typer.Option("--url", help="gRPC address of a server.")]
AdminKeyOption = Annotated[
    Path | None, typer.Option(help="The file that 'up --admin-key-file' was given.")
]

TlsCaOption = Annotated[
    Path | None, typer.Option(help="PEM: authorities to check the server against; means TLS.")
]
TlsCertOption = Annotated[Path | None, typer.Option(help="PEM: this side's certificate.")]
TlsKeyOption = Annotated[Path | None, typer.Option(help="PEM: its private key.")]

models_app = typer.Typer(no_args_is_help=True, help="Control the models of a running server.")


def doctor_command(
    url: UrlOption = "localhost:8001",
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    admin_key_file: AdminKeyOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model to examine; all of them by default. Repeatable."),
    ] = None,
) -> None:
    """Check that the models of a running server still give their golden embeddings."""
    endpoint = Endpoint(url, tls_ca, tls_cert, tls_key)
    findings = examine(endpoint, model or _names(endpoint, admin_key_file))
    table = Table("model", "version", "contract", "golden embeddings")
    for finding in findings:
        verdict = finding.problem or finding.note or str(finding.agreement)
        style = "red" if finding.problem else ""
        table.add_row(finding.model, finding.version, finding.contract_id, Text(verdict, style))
    console.print(table)
    if any(finding.problem for finding in findings):
        raise typer.Exit(CHECK_FAILED)


@models_app.command("list")
def models_list(
    url: UrlOption = "localhost:8001",
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    admin_key_file: AdminKeyOption = None,
) -> None:
    """List the models of a running server's repository."""
    table = Table("model", "version", "state", "reason")
    for row in list_models(Endpoint(url, tls_ca, tls_cert, tls_key), _key(admin_key_file)):
        table.add_row(*map(Text, row))
    console.print(table)


@models_app.command("load")
def models_load(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    url: UrlOption = "localhost:8001",
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    admin_key_file: AdminKeyOption = None,
) -> None:
    """Load a model from the repository."""
    load_model(Endpoint(url, tls_ca, tls_cert, tls_key), name, _key(admin_key_file))
    console.print(f"{name}: loaded.")


@models_app.command("reload")
def models_reload(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    url: UrlOption = "localhost:8001",
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    admin_key_file: AdminKeyOption = None,
) -> None:
    """Read a model anew, for instance after 'repo promote'; no request is lost meanwhile."""
    load_model(Endpoint(url, tls_ca, tls_cert, tls_key), name, _key(admin_key_file))
    ready = [
        state.version
        for state in list_models(Endpoint(url, tls_ca, tls_cert, tls_key), _key(admin_key_file))
        if state.name == name and state.state == "READY"
    ]
    console.print(f"{name}: serves version {', '.join(ready) or 'none'}.")


@models_app.command("unload")
def models_unload(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    url: UrlOption = "localhost:8001",
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    admin_key_file: AdminKeyOption = None,
) -> None:
    """Unload a model once its requests in flight are answered."""
    unload_model(Endpoint(url, tls_ca, tls_cert, tls_key), name, _key(admin_key_file))
    console.print(f"{name}: unloaded.")


def _names(endpoint: Endpoint, admin_key_file: Path | None) -> list[str]:
    """Return the server's models, or the usual ones of a server that does not show them."""
    try:
        states = list_models(endpoint, _key(admin_key_file))
    except ControlClosed:
        if admin_key_file is not None:
            raise
        console.print(
            "This server shows its models to nobody without --admin-key-file: looking for "
            f"{', '.join(_USUAL_NAMES)}. Name others with --model."
        )
        return ready_among(endpoint, _USUAL_NAMES)
    return sorted({state.name for state in states})


def _key(path: Path | None) -> str | None:
    return read_admin_key(path) if path is not None else None
