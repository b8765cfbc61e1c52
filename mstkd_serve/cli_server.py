"""The commands that install, start and examine a tritonserver."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mstkd_serve.cli_console import CHECK_FAILED, console
from mstkd_serve.repository import check_repository
from mstkd_serve.triton import Ports, TritonServer, examine, install, installed_home, locate

triton_app = typer.Typer(no_args_is_help=True, help="Install and find a tritonserver.")


@triton_app.command("install")
def triton_install(
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="onnxruntime (default) or openvino; may be repeated."),
    ] = None,
) -> None:
    """Install a tritonserver with pip, in an environment of its own."""
    home = installed_home()
    made = install(
        home, runtimes=tuple(runtime or ["onnxruntime"]), progress=lambda line: console.print(line)
    )
    console.print(f"tritonserver {'is installed' if made else 'was installed already'} in {home}")


@triton_app.command("locate")
def triton_locate() -> None:
    """Show which tritonserver 'up' would start."""
    console.print(str(locate().binary))


def up_command(
    model_repo: Annotated[Path, typer.Option("--model-repo", help="Folder to serve.")],
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8002,
    server: Annotated[Path | None, typer.Option(help="Path of a tritonserver.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Keep Triton's log here.")] = None,
    ready_timeout: Annotated[float, typer.Option(min=1, help="Seconds to readiness.")] = 120,
) -> None:
    """Serve a model repository on loopback until Ctrl-C or SIGTERM."""
    check_repository(model_repo)
    installation = locate(server)
    stopping = _stop_on_signals()
    ports = Ports(grpc=grpc_port, http=http_port, metrics=metrics_port)
    with TritonServer(installation, model_repo, ports, log_file) as running:
        with console.status("tritonserver is loading the models"):
            running.wait_ready(ready_timeout, stopping.is_set)
        if not stopping.is_set():
            _show_server(running)
        while not stopping.wait(0.5):
            running.check_alive()
        console.print("Stopping: requests in flight are finished first.")
    console.print("Stopped.")


def doctor_command(
    url: Annotated[str, typer.Option("--url", help="gRPC address of a server.")] = "localhost:8001",
) -> None:
    """Check that every model of a running server still gives its golden embeddings."""
    findings = examine(url)
    table = Table("model", "version", "contract", "golden embeddings")
    for finding in findings:
        verdict = Text(
            finding.problem or finding.note or str(finding.agreement),
            "red" if finding.problem else "",
        )
        table.add_row(finding.model, finding.version, finding.contract_id, verdict)
    console.print(table)
    if any(finding.problem for finding in findings):
        raise typer.Exit(CHECK_FAILED)


def _stop_on_signals() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set."""
    event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        event.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return event


def _show_server(server: TritonServer) -> None:
    if server.installation.from_wheel:
        console.print(
            "This tritonserver comes from a pip wheel: for development. "
            "In production use NVIDIA's container."
        )
    table = Table("model", "version", "state")
    for row in server.models():
        table.add_row(*row)
    console.print(table)
    console.print(
        f"gRPC {server.url}, HTTP 127.0.0.1:{server.ports.http}, "
        f"metrics 127.0.0.1:{server.ports.metrics}. Ready; Ctrl-C stops it."
    )
