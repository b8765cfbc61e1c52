"""The commands that install, start and examine a tritonserver."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from rich.table import Table

from mstkd_serve.cli_console import console
from mstkd_serve.repository import check_repository
from mstkd_serve.triton import (
    CONTROL,
    DRAIN_SECONDS,
    LOOPBACK,
    SHARED_MEMORY,
    Access,
    ModelControl,
    Ports,
    TritonServer,
    install,
    installed_home,
    locate,
    read_admin_key,
)

SECURE_VERSION: Final = "2.59.0"
"""Triton of container 25.07: the first with the fixes of NVIDIA's bulletin of August 2025."""
triton_app = typer.Typer(no_args_is_help=True, help="Install and find a tritonserver.")


@triton_app.command("install")
def triton_install(
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime", help="openvino (default), onnxruntime or onnxruntime-gpu; repeat."
        ),
    ] = None,
) -> None:
    """Install a tritonserver with pip, in an environment of its own."""
    home = installed_home()
    made = install(
        home, runtimes=tuple(runtime or ["openvino"]), progress=lambda line: console.print(line)
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
    address: Annotated[
        str, typer.Option(help="IP address of gRPC; others than loopback need TLS.")
    ] = LOOPBACK,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM: the server's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM: its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM: who signs clients' certificates (mutual TLS).")
    ] = None,
    insecure_network: Annotated[
        bool, typer.Option("--insecure-network", help="Allow --address without TLS.")
    ] = False,
    model_control: Annotated[
        ModelControl, typer.Option(help="explicit: 'mstkd-serve models' may load and unload.")
    ] = ModelControl.NONE,
    admin_key_file: Annotated[
        Path | None, typer.Option(help="Key of the closed protocols; made if missing.")
    ] = None,
    allow_shared_memory: Annotated[
        bool, typer.Option("--allow-shared-memory", help="For clients on this machine.")
    ] = False,
    cache_bytes: Annotated[
        int, typer.Option(min=0, help="Response cache, for models with one.")
    ] = 0,
    drain_seconds: Annotated[
        int, typer.Option(min=0, max=3600, help="Longest wait for requests when stopping.")
    ] = DRAIN_SECONDS,
    server: Annotated[Path | None, typer.Option(help="Path of a tritonserver.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Keep Triton's log here.")] = None,
    ready_timeout: Annotated[float, typer.Option(min=1, help="Seconds to readiness.")] = 120,
) -> None:
    """Serve a model repository until Ctrl-C or SIGTERM.

    Model control, shared memory, tracing and logging are closed to callers without the key.
    """
    key = {"admin_key": read_admin_key(admin_key_file, create=True)} if admin_key_file else {}
    access = Access(
        address=address,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        insecure_network=insecure_network,
        closed=tuple(name for name in CONTROL if name != SHARED_MEMORY or not allow_shared_memory),
        **key,
    )
    access.check()
    check_repository(model_repo)
    installation = locate(server)
    stopping = _stop_on_signals()
    ports = Ports(grpc=grpc_port, http=http_port, metrics=metrics_port)
    with TritonServer(
        installation,
        model_repo,
        ports,
        log_file,
        access=access,
        control=model_control,
        cache_bytes=cache_bytes,
        drain_seconds=drain_seconds,
    ) as running:
        with console.status("tritonserver is loading the models"):
            running.wait_ready(ready_timeout, stopping.is_set)
        if not stopping.is_set():
            _show_server(running)
        while not stopping.wait(0.5):
            running.check_alive()
            for model in running.dead_models():
                running.revive(model)
                console.print(f"The process of model {model!r} died; it was loaded anew.")
        console.print("Stopping: requests in flight are finished first.")
    console.print("Stopped.")


def _stop_on_signals() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set."""
    event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        event.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return event


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _show_server(server: TritonServer) -> None:
    if server.installation.from_wheel:
        console.print(
            "This tritonserver comes from a pip wheel: for development. "
            "In production use NVIDIA's container."
        )
    if (version := server.version()) and _numbers(version) < _numbers(SECURE_VERSION):
        console.print(
            f"It is old: Triton {version}. {SECURE_VERSION} (container 25.07) closed security "
            "holes: let only callers that you trust reach this one."
        )
    table = Table("model", "version", "state")
    for row in server.models():
        table.add_row(*row)
    console.print(table)
    for line in server.runtimes():
        console.print(line)
    console.print(
        f"gRPC {server.url}{' (TLS)' if server.access.tls_cert else ''}, "
        f"HTTP 127.0.0.1:{server.ports.http}, metrics 127.0.0.1:{server.ports.metrics}. "
        "Ready; Ctrl-C stops it."
    )
