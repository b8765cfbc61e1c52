"""The main job from end to end: train, distil, export, serve on a real Triton, verify over gRPC.

`make demo` runs it. The commands it prints are the ones to type for a job of one's own. Run again
after an interruption, it goes on where it was.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from mstkd_client import MstkdClientError
from mstkd_serve.errors import MstkdError
from mstkd_serve.fairness import Metrics, write_report
from mstkd_serve.triton import Ports, TritonServer, locate
from mstkd_training.artifact import Artifact
from mstkd_training.test_pairs import load_test_set
from verification import draw_scores, verify_model

console = Console(highlight=False, soft_wrap=True, markup=False)


def command(*words: object) -> None:
    """Print a command of ours and run it; stop where it fails."""
    texts = [str(word) for word in words]
    console.print(f"\n$ {' '.join(texts)}", style="bold")
    program = Path(sys.executable).parent / texts[0]
    status = subprocess.run([str(program), *texts[1:]], check=False).returncode
    if status != 0:
        sys.exit(status)


def export_all(training: Path, models: Path) -> dict[str, Path]:
    """Export the student, the teachers in the adaptor's order, and the adaptor to ONNX."""
    adaptor = Artifact.open(training / "adaptor", "adaptor")
    names = ["student", *(teacher.name for teacher in adaptor.manifest.teachers), "adaptor"]
    for name in names:
        flavor = ["--flavor", "adaptor"] if name == "adaptor" else []
        command(
            *("mstkd-train", "export", training / name, *flavor, "--out", models / f"{name}.onnx")
        )
    return {name: models / f"{name}.onnx" for name in names}


def verify_all(repository: Path, training: Path, out: Path) -> None:
    """Serve the repository, verify held-out identities with each model, and report."""
    tests = load_test_set(training)
    faces, pairs = tests.faces, tests.pairs
    teachers = sorted(path.name for path in repository.glob("teacher_*"))
    names = [*teachers, "ensemble", "student"]
    console.print(f"\n$ mstkd-serve up --model-repo {repository}", style="bold")
    started = time.perf_counter()
    with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
        server.wait_ready(120)
        console.print(f"Ready after {time.perf_counter() - started:.1f} s on {server.url}.")
        results = {name: verify_model(server.url, name, faces, pairs) for name in names}
    for name, (metrics, _) in results.items():
        others = [other for key, (other, _) in results.items() if key != name]
        metrics.save(out / "report" / name / "metrics.json")
        write_report(metrics, out / "report" / name, others)
    draw_scores(results["student"][0], out / "scores.png")
    console.print("\nVerification accuracy over gRPC, percent", style="bold")
    console.print(_table(results, faces.group_names))
    console.print(
        f"{len(faces.images)} faces of {faces.identity_count} identities that no model was "
        f"trained on, {len(pairs.genuine)} pairs; one global threshold a model, chosen on these "
        "pairs. STD: of the four accuracies, ddof 0. SER: largest error over smallest."
    )
    console.print(f"Score distributions of the student: {out / 'scores.png'}")
    console.print(f"The student's report, against the others: {out}/report/student/report.html")


def _table(results: dict[str, tuple[Metrics, float]], group_names: tuple[str, ...]) -> Table:
    table = Table("model", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in (*group_names, "mean", "STD", "SER", "faces/s"):
        table.add_column(column, justify="right")
    for name, (metrics, faces_per_second) in results.items():
        summary = metrics.summary
        table.add_row(
            name,
            *(f"{metrics.groups[group].accuracy:.1f}" for group in group_names),
            f"{summary.accuracy_mean:.1f}",
            f"{summary.std:.2f}",
            "undefined" if summary.ser is None else f"{summary.ser:.2f}",
            f"{faces_per_second:.0f}",
        )
    return table


def main() -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything it leaves")
    parser.add_argument("--recipe", default="demo", help="a recipe's name or YAML file")
    arguments = parser.parse_args()
    out: Path = arguments.out
    started = time.perf_counter()
    try:
        training, repository = out / "training", out / "model_repository"
        command("mstkd-train", "pipeline", "--recipe", arguments.recipe, "--out", training)
        models = export_all(training, out / "models")
        teachers = [f"--teacher={path}" for name, path in models.items() if "teacher" in name]
        command(
            *("mstkd-serve", "repo", "build", "--student", models["student"], *teachers),
            *("--adaptor", models["adaptor"], "--replace", "--out", repository),
        )
        verify_all(repository, training, out)
    except (MstkdError, MstkdClientError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted. The same command goes on from here.")
        return 130
    console.print(
        f"All of it took {time.perf_counter() - started:.0f} s. Serve it yourself: "
        f"mstkd-serve up --model-repo {repository}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
