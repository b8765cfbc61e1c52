"""The report of a benchmark as files: JSON, and a picture of throughput against latency."""

from collections.abc import Sequence
from pathlib import Path

from mstkd_serve.bench.load import LoadPoint
from mstkd_serve.bench.results import BenchReport
from mstkd_serve.errors import EngineError
from mstkd_serve.files import atomic_path

JSON_FILE = "bench.json"
PICTURE_FILE = "bench.svg"


def write_report(report: BenchReport, folder: Path) -> list[Path]:
    """Write `bench.json` and `bench.svg` into a folder, which is made.

    Raises:
        EngineError: matplotlib is not installed; the JSON is written before.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / JSON_FILE) as temporary:
        temporary.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with atomic_path(folder / PICTURE_FILE) as temporary:
        _draw(report.loads, temporary)
    return [folder / JSON_FILE, folder / PICTURE_FILE]


def _draw(loads: Sequence[LoadPoint], path: Path) -> None:
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EngineError(
            "the picture needs matplotlib: pip install 'mstkd-serve[report]'."
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for batch in sorted({point.batch for point in loads if point.loop == "closed"}):
        line = [point for point in loads if point.loop == "closed" and point.batch == batch]
        axes.plot(
            [point.faces_per_second for point in line],
            [point.p50_ms for point in line],
            marker="o",
            label=f"closed loop, batch {batch} (points: callers at a time)",
        )
        for point in line:
            axes.annotate(
                str(point.concurrency),
                (point.faces_per_second, point.p50_ms),
                xytext=(5, 4),
                textcoords="offset points",
            )
    arrivals = [point for point in loads if point.loop == "open"]
    for name, marker in (("p50_ms", "s"), ("p99_ms", "^")):
        axes.plot(
            [point.faces_per_second for point in arrivals],
            [getattr(point, name) for point in arrivals],
            marker=marker,
            linestyle="--",
            label=f"Poisson arrivals, batch 1, {name[:3]}",
        )
    axes.set(xlabel="faces/s", ylabel="latency of a request, ms (p50)", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, format="svg")
