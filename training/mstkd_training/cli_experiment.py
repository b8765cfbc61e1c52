"""The command `mstkd-train experiment`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mstkd_training.experiment import print_tables, run_experiment, write_results
from mstkd_training.progress import ConsoleReporter
from mstkd_training.recipe_file import load_recipe

experiment_app = typer.Typer(help="Experiments that reprint a table.", no_args_is_help=True)


@experiment_app.callback()
def _experiments() -> None:
    """Experiments that reprint a table."""


@experiment_app.command("specialised-vs-generalist")
def specialised_vs_generalist_command(
    out: Annotated[Path, typer.Option(help="Folder for artifacts, tables and picture.")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a YAML file.")] = "experiment",
    seeds: Annotated[
        int, typer.Option(help="How many seeds, counted up from the recipe's.", min=1)
    ] = 4,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as data.nuisance_strength=2; repeatable."),
    ] = None,
) -> None:
    """Compare specialised with generalist teachers, on rendered faces.

    Under every adaptor, by a-KD and EAF-KD students and by teachers and adaptor themselves.
    Killed or interrupted, it goes on with the same command; more seeds add to those that are
    there. Beside the printed tables, OUT has runs.csv, summary.csv, differences.csv and
    experiment.svg.
    """
    loaded = load_recipe(recipe, override or ())
    console = Console()
    reporter = ConsoleReporter(console)
    results = run_experiment(loaded, out, seeds, reporter)
    print_tables(console, results)
    files = write_results(out, results)
    reporter.message(f"Written: {', '.join(map(str, files))}")
