"""The command line `mstkd-serve`: the composition root; the `cli_*` files alone print."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from pydantic import ValidationError

from mstkd_serve import __version__
from mstkd_serve.cli_bench import bench_command
from mstkd_serve.cli_console import (
    CHECK_FAILED,
    INTERRUPTED,
    USER_MISTAKE,
    console,
    errors,
    print_error,
)
from mstkd_serve.cli_fairness import calibrate_command, evaluate_app
from mstkd_serve.cli_graph import graph_command
from mstkd_serve.cli_models import doctor_command, models_app
from mstkd_serve.cli_precision import precision_app
from mstkd_serve.cli_repo import repo_app
from mstkd_serve.cli_server import triton_app, up_command
from mstkd_serve.cli_tune import tune_command
from mstkd_serve.cli_versions import add_version_command, promote_command, rollback_command
from mstkd_serve.errors import MstkdError, ParityError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
repo_app.command("add-version")(add_version_command)
repo_app.command("promote")(promote_command)
repo_app.command("rollback")(rollback_command)
app.add_typer(repo_app, name="repo")
app.add_typer(models_app, name="models")
app.add_typer(triton_app, name="triton")
app.add_typer(precision_app, name="precision")
app.add_typer(evaluate_app, name="evaluate")
app.command("graph")(graph_command)
app.command("bench")(bench_command)
app.command("tune")(tune_command)
app.command("up")(up_command)
app.command("doctor")(doctor_command)
app.command("calibrate")(calibrate_command)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Serve fair face recognition: ONNX in, embeddings over gRPC out."""
    if version:
        console.print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2."""
    sys.exit(run(app))


def run(application: Callable[[], object]) -> int:
    """Run a command line; turn the errors that users cause into a line and an exit status."""
    try:
        application()
    except MstkdError as error:
        print_error(str(error))
        return CHECK_FAILED if isinstance(error, ParityError) else USER_MISTAKE
    except OSError as error:
        print_error(f"{error.filename or 'file'}: {error.strerror or error}")
        return USER_MISTAKE
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        print_error(f"{option}: {problem['msg']}")
        return USER_MISTAKE
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


if __name__ == "__main__":
    main()
