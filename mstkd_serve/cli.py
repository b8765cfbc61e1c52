"""The command line `mstkd-serve`: the composition root; it and `cli_fairness` alone print."""

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mstkd_serve import __version__
from mstkd_serve.cli_fairness import calibrate_command, evaluate_app
from mstkd_serve.contract import Preprocessing, load_preprocessing
from mstkd_serve.errors import MstkdError, ParityError
from mstkd_serve.graph import build_served_graph, read_contract
from mstkd_serve.repository import ServingOptions, Target, build_repository, check_repository
from mstkd_serve.triton import Ports, TritonServer, examine, install, installed_home, locate

USER_MISTAKE = 2
CHECK_FAILED = 1
INTERRUPTED = 130

# Paths and names may hold brackets, so text is never read as markup.
console = Console(highlight=False, soft_wrap=True, markup=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
repo = typer.Typer(no_args_is_help=True, help="Build and check Triton model repositories.")
triton = typer.Typer(no_args_is_help=True, help="Install and find a tritonserver.")
app.add_typer(repo, name="repo")
app.add_typer(triton, name="triton")
app.add_typer(evaluate_app, name="evaluate")
app.command("calibrate")(calibrate_command)

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


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Serve fair face recognition: ONNX in, embeddings over gRPC out."""
    if version:
        console.print(__version__)
        raise typer.Exit


@app.command()
def graph(
    source: Annotated[Path, typer.Argument(help="A recogniser's ONNX file.")],
    out: Annotated[Path, typer.Option("--out", help="The served graph to write.")],
    contract: ContractOption = None,
    flip: FlipOption = False,
) -> None:
    """Make the served graph of a recogniser and prove that both agree."""
    written = build_served_graph(source, out, preprocessing=_preprocessing(contract, flip, source))
    console.print(f"{out}: contract {written.id}, {written.embedding_dim}-d, proven.")


@repo.command("build")
def repo_build(
    student: Annotated[Path, typer.Option("--student", help="ONNX file served as 'student'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the model repository.")],
    target: Annotated[Target, typer.Option("--target", help="Triton's backend.")] = Target.PYTHON,
    contract: ContractOption = None,
    flip: FlipOption = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A further model as NAME=FILE.onnx; may be repeated."),
    ] = None,
    max_batch_size: Annotated[int, typer.Option(help="Largest batch.")] = 32,
    max_queue_size: Annotated[int, typer.Option(help="Most requests that wait; 0: any.")] = 256,
    queue_timeout_ms: Annotated[int, typer.Option(help="Longest wait in the queue.")] = 60_000,
    max_queue_delay_us: Annotated[int, typer.Option(help="Wait for companions, in us.")] = 0,
    instances: Annotated[int, typer.Option(help="Copies of each model.")] = 1,
    intra_op_threads: Annotated[int, typer.Option(help="Threads a copy; 0: share cores.")] = 0,
    max_request_bytes: Annotated[int, typer.Option(help="Most bytes a request; 0: any.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Replace --out.")] = False,
) -> None:
    """Write a Triton model repository from ONNX files."""
    models = {"student": student} | dict(_named_file(text) for text in model or [])
    options = ServingOptions(
        max_batch_size=max_batch_size,
        max_queue_size=max_queue_size,
        queue_timeout_ms=queue_timeout_ms,
        max_queue_delay_us=max_queue_delay_us,
        instances=instances,
        intra_op_threads=intra_op_threads,
        max_request_bytes=max_request_bytes,
    )
    contracts = build_repository(
        models,
        out,
        target=target,
        preprocessing=_preprocessing(contract, flip, student),
        options=options,
        replace=replace,
    )
    for name, written in contracts.items():
        console.print(f"{name}: contract {written.id}, {written.embedding_dim}-d, proven.")
    console.print(f"Model repository for the {target.value} target: {out}")


@repo.command("check")
def repo_check(
    folder: Annotated[Path, typer.Argument(help="Folder of the model repository.")],
) -> None:
    """Check that a model repository is complete and agrees with itself."""
    for name, contract in check_repository(folder).items():
        console.print(f"{name}: contract {contract.id}, {contract.embedding_dim}-d, in order.")


@triton.command("install")
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


@triton.command("locate")
def triton_locate() -> None:
    """Show which tritonserver 'up' would start."""
    console.print(str(locate().binary))


@app.command()
def up(
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


@app.command()
def doctor(
    url: Annotated[str, typer.Option("--url", help="gRPC address of a server.")] = "localhost:8001",
) -> None:
    """Check that every model of a running server still gives its golden embeddings."""
    findings = examine(url)
    table = Table("model", "version", "contract", "golden embeddings")
    for finding in findings:
        verdict = Text(finding.problem or str(finding.agreement), "red" if finding.problem else "")
        table.add_row(finding.model, finding.version, finding.contract_id, verdict)
    console.print(table)
    if any(finding.problem for finding in findings):
        raise typer.Exit(CHECK_FAILED)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2."""
    sys.exit(run(app))


def run(application: Callable[[], object]) -> int:
    """Run a command line; turn the errors that users cause into a line and an exit status."""
    try:
        application()
    except MstkdError as error:
        _print_error(str(error))
        return CHECK_FAILED if isinstance(error, ParityError) else USER_MISTAKE
    except OSError as error:
        _print_error(f"{error.filename or 'file'}: {error.strerror or error}")
        return USER_MISTAKE
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        _print_error(f"{option}: {problem['msg']}")
        return USER_MISTAKE
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _print_error(text: str) -> None:
    errors.print(Text("error: ", "bold red") + Text(text))


def _preprocessing(contract: str | None, flip: bool, source: Path) -> Preprocessing | None:
    """Return what the options say of the contract, or None where they say nothing."""
    stated = load_preprocessing(contract) if contract else None
    if not flip:
        return stated
    base = stated or read_contract(source)
    if base is None:
        return None  # the graph builder names the file and the remedy
    fields = {name: getattr(base, name) for name in Preprocessing.model_fields}
    return Preprocessing(**fields | {"flip": True})


def _named_file(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise typer.BadParameter(f"--model {text!r}: write NAME=FILE.onnx")
    return name, Path(path)


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


if __name__ == "__main__":
    main()
