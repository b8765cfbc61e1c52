"""`mstkd-serve evaluate` and `mstkd-serve calibrate`: measure, report, gate, calibrate."""

import contextlib
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from mstkd_serve.cli_console import CHECK_FAILED, console
from mstkd_serve.errors import DataError
from mstkd_serve.fairness.calibrate import (
    calibrate,
    contract_of,
    fit_probability,
    write_calibration,
)
from mstkd_serve.fairness.cautions import image_leaks, training_leak
from mstkd_serve.fairness.evaluate import evaluate
from mstkd_serve.fairness.gate import Gate, broken_limits, load_gate
from mstkd_serve.fairness.pair_lists import read_pair_list
from mstkd_serve.fairness.pair_scores import model_embedder, score_pairs, url_embedder
from mstkd_serve.fairness.report import write_report
from mstkd_serve.fairness.schema import Metrics, ModelDescription
from mstkd_serve.fairness.scores import Scores, read_scores

METRICS_FILE = "metrics.json"

evaluate_app = typer.Typer(
    no_args_is_help=True, help="Measure accuracy and its spread over groups; write a report."
)


OutOption = Annotated[Path, typer.Option("--out", help="Folder of the report; created.")]
ThresholdOption = Annotated[
    float | None, typer.Option(help="Global threshold; default: best mean accuracy.")
]
BootstrapOption = Annotated[int, typer.Option(min=0, help="Replicates for intervals; 0: none.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
DdofOption = Annotated[int, typer.Option(min=0, max=1, help="Degrees of freedom of STD.")]
FmrOption = Annotated[
    list[float] | None,
    typer.Option("--fmr", help="A further FMR to find thresholds for; may be repeated."),
]
GateOption = Annotated[
    Path | None, typer.Option(help="YAML file of limits; exit 1 where one is broken.")
]
CompareOption = Annotated[
    list[Path] | None, typer.Option(help="metrics.json of another model; may be repeated.")
]
TrainingOption = Annotated[
    Path | None,
    typer.Option(help="Identities of the training data, a line each, to look for leaks."),
]


@evaluate_app.command("scores")
def evaluate_scores(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: group, genuine, score.")],
    out: OutOption,
    threshold: ThresholdOption = None,
    bootstrap: BootstrapOption = 1000,
    seed: SeedOption = 0,
    ddof: DdofOption = 0,
    fmr: FmrOption = None,
    gate: GateOption = None,
    compare: CompareOption = None,
    training_identities: TrainingOption = None,
    model_name: Annotated[str | None, typer.Option(help="Name of the model measured.")] = None,
) -> None:
    """Measure scores of any verifier."""
    limits, others = _read_beside(gate, compare)
    scores = read_scores(file)
    model = ModelDescription(name=model_name or file.stem)
    metrics = _measure(scores, model, threshold, bootstrap, seed, ddof, fmr, training_identities)
    _finish(metrics, out, limits, others)


@evaluate_app.command("pairs")
def evaluate_pairs(
    pairs: Annotated[Path, typer.Argument(help="CSV of pairs, RFW folder or LFW pairs.txt.")],
    out: OutOption,
    model: Annotated[Path | None, typer.Option(help="Served graph (ONNX), in process.")] = None,
    url: Annotated[str | None, typer.Option(help="gRPC address of a server.")] = None,
    model_name: Annotated[str, typer.Option(help="Model on the server.")] = "student",
    threshold: ThresholdOption = None,
    bootstrap: BootstrapOption = 1000,
    seed: SeedOption = 0,
    ddof: DdofOption = 0,
    fmr: FmrOption = None,
    gate: GateOption = None,
    compare: CompareOption = None,
    training_identities: TrainingOption = None,
    training_images: Annotated[
        Path | None, typer.Option(help="Folder of training images, to look for leaks.")
    ] = None,
) -> None:
    """Embed pairs of aligned faces with a model, and measure it."""
    if (model is None) == (url is None):
        raise DataError("give either --model M.onnx or --url HOST:PORT.")
    limits, others = _read_beside(gate, compare)
    listed = read_pair_list(pairs)
    with contextlib.ExitStack() as stack:
        if model is not None:
            embed, description = model_embedder(model)
        else:
            assert url is not None
            embed, description = stack.enter_context(url_embedder(url, model_name))
        bar = stack.enter_context(Progress(console=console))
        task = bar.add_task("embedding faces", total=None)
        scores = score_pairs(
            listed,
            embed,
            str(pairs),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    metrics = _measure(
        scores, description, threshold, bootstrap, seed, ddof, fmr, training_identities
    )
    leaks = image_leaks(listed, training_images)
    metrics = metrics.model_copy(update={"warnings": (*leaks, *metrics.warnings)})
    _finish(metrics, out, limits, others)


def calibrate_command(
    metrics_file: Annotated[Path, typer.Argument(help="metrics.json of this model.")],
    model: Annotated[Path, typer.Option("--model", help="Served graph to write into.")],
    fmr: Annotated[float, typer.Option("--fmr", help="False match rate to keep, e.g. 1e-3.")],
    policy: Annotated[
        Literal["worst_group", "pooled"],
        typer.Option(help="worst_group: no group exceeds it; pooled: all pairs together."),
    ] = "worst_group",
    allow_unsupported: Annotated[
        bool, typer.Option("--allow-unsupported", help="Accept too few impostor pairs.")
    ] = False,
) -> None:
    """Write the threshold for a false match rate into a model's metadata."""
    metrics = Metrics.load(metrics_file)
    calibration = calibrate(
        metrics,
        contract_of(model).id,
        fmr,
        policy,
        allow_unsupported=allow_unsupported,
    )
    write_calibration(model, calibration)
    if metrics.model.contract_id is None:
        console.print(
            f"note: {metrics_file} does not say which model it measured: see that it was this one."
        )
    worst = max(calibration.group_fmr.values())
    console.print(
        f"{model}: accepts from a cosine of {calibration.threshold:.4f} on (FMR {fmr:g}, "
        f"{policy}; worst group {worst:.3g}). Build the model repository again to serve it."
    )


def _measure(
    scores: Scores,
    model: ModelDescription,
    threshold: float | None,
    bootstrap: int,
    seed: int,
    ddof: int,
    fmr: list[float] | None,
    training: Path | None,
) -> Metrics:
    metrics = evaluate(
        scores,
        threshold=threshold,
        ddof=1 if ddof else 0,
        bootstrap=bootstrap,
        seed=seed,
        fmr_targets=fmr or (),
        model=model,
    )
    found = {"probability": fit_probability(scores)}
    if training is not None:
        try:
            names = training.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"--training-identities {training}: is not text ({error}).") from error
        leak = training_leak(scores, names)
        warnings = (leak, *metrics.warnings) if leak else metrics.warnings
        return metrics.model_copy(update=found | {"warnings": warnings})
    return metrics.model_copy(update=found)


def _read_beside(
    gate: Path | None, compare: list[Path] | None
) -> tuple[Gate | None, list[Metrics]]:
    """Read the limits and the other models, before anything that takes long."""
    return load_gate(gate) if gate else None, [Metrics.load(path) for path in compare or []]


def _finish(metrics: Metrics, out: Path, limits: Gate | None, others: list[Metrics]) -> None:
    """Write everything, show the summary, and hold the gate."""
    metrics.save(out / METRICS_FILE)
    write_report(metrics, out, others)
    _show(metrics)
    console.print(f"Report: {out / 'report.html'}")
    if limits is None:
        return
    broken = broken_limits(limits, metrics)
    for sentence in broken:
        console.print(Text("gate: ", "bold red") + Text(sentence))
    if broken:
        raise typer.Exit(CHECK_FAILED)
    console.print("Gate: every limit holds.")


def _show(metrics: Metrics) -> None:
    table = Table("group", "genuine", "impostor", "accuracy", "own threshold", "FMR", "FNMR")
    for name, group in metrics.groups.items():
        table.add_row(
            name,
            str(group.genuine),
            str(group.impostor),
            f"{group.accuracy:.2f} %",
            f"{group.own.accuracy:.2f} %",
            f"{group.fmr:.2%}",
            f"{group.fnmr:.2%}",
        )
    console.print(table)
    summary, own = metrics.summary, metrics.summary.per_group_thresholds
    for policy, spread in (("one threshold", summary), ("own thresholds", own)):
        ser = "undefined" if spread.ser is None else f"{spread.ser:.2f}"
        console.print(
            f"{policy}: mean {spread.accuracy_mean:.2f} %, STD {spread.std:.2f}, SER {ser}"
        )
    for caution in metrics.warnings:
        style = "bold red" if caution.severity == "serious" else "yellow"
        console.print(Text(f"{caution.severity}: ", style) + Text(caution.message))
