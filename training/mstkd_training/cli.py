"""The command line of training, `mstkd-train`; the only place here that prints.

Exit status: 0 done, 1 an exported file failed its proof, 2 a user's mistake, 130 interrupted.
"""

import os

# Idle threads of OpenMP spin by default: two trainings on the same cores then slow each other
# down twelvefold. It reads this only once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mstkd_serve.errors import MstkdError, ParityError, RecipeError
from mstkd_training.cli_experiment import experiment_app
from mstkd_training.cli_import import import_command
from mstkd_training.data.testset import TestSet, bins_test_set, listed_test_set, write_test_set
from mstkd_training.export import export
from mstkd_training.export_adaptor import export_adaptor
from mstkd_training.loop import USUAL, LoopSettings, join_processes
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import ConsoleReporter, SilentReporter
from mstkd_training.recipe_file import load_recipe
from mstkd_training.test_pairs import load_test_set

app = typer.Typer(
    help="Train, distil and export fair face-recognition students (MST-KD).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130


class _Flavor(StrEnum):
    SERVED = "served"
    INSIGHTFACE = "insightface"
    ADAPTOR = "adaptor"


@app.command("pipeline")
def pipeline_command(
    out: Annotated[Path, typer.Option(help="Folder for the artifacts.")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a YAML file.")] = "demo",
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as student.optimiser.epochs=20; repeatable."),
    ] = None,
    use: Annotated[
        list[str] | None,
        typer.Option(
            help="STAGE=FOLDER, such as teacher_asian=imported/teacher_asian: take this teacher "
            "or adaptor instead of training one; repeatable."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = (
        "auto"
    ),
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Write a training's state this often, beside every epoch.", min=0)
    ] = USUAL.checkpoint_minutes,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Write it also every so many steps.", min=1)
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(
            help="Pairs to measure teachers and student on after every epoch, for OUT/logs alone: "
            "RFW's folder, LFW's pairs.txt, a CSV file of pairs, or a verification .bin."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files to OUT/logs/tensorboard.")
    ] = False,
) -> None:
    """Run data, teachers, embeddings, adaptor, targets, student; skip what is up to date.

    Killed or interrupted, it goes on with the same command. Figures of every epoch are in
    OUT/logs. On several GPUs or CPUs: torchrun --nproc-per-node N -m mstkd_training.cli pipeline
    and these options.
    """
    loaded = load_recipe(recipe, override or ())
    settings = LoopSettings(checkpoint_minutes, checkpoint_steps, tensorboard)
    with join_processes(device) as processes:
        reporter = ConsoleReporter(Console()) if processes.first else SilentReporter()
        student = run_pipeline(
            loaded,
            out,
            reporter,
            use=_folders_to_use(use or ()),
            processes=processes,
            settings=settings,
            watched=_pairs_to_watch(watch) if watch and processes.first else None,
        )
    reporter.message(
        f"Done. Export the student: mstkd-train export {student.path} --out student.onnx"
    )


def _pairs_to_watch(path: Path) -> TestSet:
    if path.suffix == ".bin":
        return bins_test_set({path.stem: path})
    return listed_test_set(path)


def _folders_to_use(options: Sequence[str]) -> dict[str, Path]:
    folders = {}
    for option in options:
        name, separator, folder = option.partition("=")
        if not (separator and name and folder):
            raise RecipeError(f"--use {option}: give STAGE=FOLDER, such as teacher_asian=FOLDER.")
        folders[name] = Path(folder)
    return folders


@app.command("export")
def export_command(
    artifact: Annotated[Path, typer.Argument(help="Folder of a teacher, student or adaptor.")],
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    flavor: Annotated[
        _Flavor,
        typer.Option(
            help="served: faces in; insightface: pixels in; adaptor: teacher embeddings in."
        ),
    ] = _Flavor.SERVED,
    flip: Annotated[bool, typer.Option("--flip", help="Embed face plus mirror image.")] = False,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Teacher folder of an adaptor, in its order; repeatable."),
    ] = None,
) -> None:
    """Write an artifact's network as ONNX; the file appears only if it equals torch."""
    if flavor is _Flavor.ADAPTOR:
        if flip:
            raise typer.BadParameter("--flip does not go with --flavor adaptor")
        contract, agreement = export_adaptor(artifact, out, teachers=teacher or ())
    else:
        contract, agreement = export(
            artifact,
            out,
            flavor="insightface" if flavor is _Flavor.INSIGHTFACE else "served",
            flip=flip,
            teachers=teacher or (),
        )
    ConsoleReporter(Console()).message(
        f"{out}: {contract.embedding_dim}-d, contract {contract.id}, equal to torch ({agreement})"
    )


@app.command("testset")
def testset_command(
    folder: Annotated[Path, typer.Argument(help="The pipeline's --out folder.")],
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
) -> None:
    """Write the faces and pairs that the recipe tests on.

    Arrays: images uint8 (N, 112, 112, 3), identities, groups (N,), group_names (G,); first,
    second, genuine, pair_groups (P,), where first and second index images; fold (P,) where the
    pairs come from a protocol.
    """
    tests = load_test_set(folder)
    write_test_set(out, tests)
    message = f"{out}: {len(tests.faces)} faces, {len(tests.pairs.genuine)} pairs"
    if tests.unreadable:
        name, reason = tests.unreadable[0]
        message += (
            f"; {len(tests.unreadable)} images could not be read and their pairs were left out, "
            f"the first is {name} ({reason})"
        )
    ConsoleReporter(Console()).message(message)


app.command("import")(import_command)
app.add_typer(experiment_app, name="experiment")


def main() -> int:
    """Run the command line and return the exit status."""
    try:
        status = app(standalone_mode=False)
    except ParityError as error:
        return _fail(str(error), 1)
    except MstkdError as error:
        return _fail(str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        status = _INTERRUPTED
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}", 2)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's UsageError, vendored or not
        if usage is None:
            raise
        status = int(getattr(error, "exit_code", 2))
        message = str(usage()).strip()  # empty where no command was given: typer printed the help
        return _fail(message, status) if message else status
    if status == _INTERRUPTED:  # typer turns Ctrl-C into this exit status
        return _fail(
            "interrupted. What is done is kept: give the same command to go on.",
            _INTERRUPTED,
        )
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    Console(stderr=True).print(
        f"mstkd-train: {message}", highlight=False, markup=False, soft_wrap=True
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
