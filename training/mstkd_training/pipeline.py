"""The whole method in order: data, teachers, embeddings, adaptor, targets, student."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml

from mstkd_serve.errors import DataError
from mstkd_serve.files import atomic_path
from mstkd_training.artifact import Artifact
from mstkd_training.manifest import Kind
from mstkd_training.progress import Reporter
from mstkd_training.recipe import Recipe, Section
from mstkd_training.stages.adaptor import train_adaptor
from mstkd_training.stages.data import make_data
from mstkd_training.stages.embeddings import make_embeddings
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.student import train_student
from mstkd_training.stages.targets import make_targets
from mstkd_training.stages.teacher import teacher_name, train_teacher

RECIPE_FILE: Final = "recipe.yaml"
"""The recipe of the last run, in the pipeline's folder."""


def run_pipeline(recipe: Recipe, folder: Path, reporter: Reporter) -> Artifact:
    """Make every artifact that is missing or stale, and say why.

    Args:
        recipe: What to do.
        folder: Where the artifacts go; created if missing.
        reporter: Where messages and progress go.

    Returns:
        The student.

    Raises:
        DataError: An artifact cannot be used, something else is in its place, or another
            pipeline is running in this folder.
        RecipeError: Training diverged.
    """
    with _only_one_in(folder):
        return _run(recipe, folder, reporter)


@contextmanager
def _only_one_in(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself; the system frees it when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{folder}: another pipeline is running here. Wait for it, or choose another --out."
            ) from None
        yield
    finally:
        os.close(handle)


def _run(recipe: Recipe, folder: Path, reporter: Reporter) -> Artifact:
    """Make what is missing or stale; see `run_pipeline`."""
    with atomic_path(folder / RECIPE_FILE) as temporary:
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        temporary.write_text(text, encoding="utf-8")

    def stage(
        kind: Kind,
        name: str,
        section: Section,
        inputs: tuple[Artifact, ...],
        make: Callable[[StageRun], Artifact],
    ) -> Artifact:
        run = StageRun(
            kind, name, folder, section, inputs, recipe.seed, recipe.preprocessing, reporter
        )
        reason = run.why_stale()
        if reason is None:
            reporter.message(f"{name}: up to date")
            return Artifact.open(run.target, kind)
        reporter.message(f"{name}: runs ({reason})")
        return make(run)

    data = stage("data", "data", recipe.data, (), lambda run: make_data(run, recipe.data))
    teachers = tuple(
        stage(
            "teacher",
            teacher_name(group),
            recipe.teacher,
            (data,),
            lambda run, group=group: train_teacher(  # type: ignore[misc]
                run, data, recipe.teacher, group
            ),
        )
        for group in recipe.data.groups
    )
    embeddings = stage(
        "embeddings",
        "embeddings",
        recipe.embeddings,
        (data, *teachers),
        lambda run: make_embeddings(run, data, teachers, recipe.embeddings),
    )
    adaptor = stage(
        "adaptor",
        "adaptor",
        recipe.adaptor,
        (data, embeddings),
        lambda run: train_adaptor(run, data, embeddings, recipe.adaptor),
    )
    targets = stage(
        "targets",
        "targets",
        recipe.targets,
        (embeddings, adaptor),
        lambda run: make_targets(run, embeddings, adaptor, recipe.targets),
    )
    return stage(
        "student",
        "student",
        recipe.student,
        (data, targets),
        lambda run: train_student(run, data, targets, recipe.student),
    )
