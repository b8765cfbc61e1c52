"""The whole method in order: data, teachers, embeddings, adaptor, targets, student."""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml

from mstkd_serve.errors import DataError
from mstkd_serve.files import atomic_path
from mstkd_training.artifact import Artifact
from mstkd_training.data.testset import TestSet
from mstkd_training.loop import ALONE, USUAL, LoopSettings, Processes
from mstkd_training.manifest import Kind
from mstkd_training.progress import Reporter
from mstkd_training.recipe import Recipe, Section
from mstkd_training.stages.adaptor import train_adaptor
from mstkd_training.stages.data import make_data
from mstkd_training.stages.embeddings import make_embeddings
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.student import train_student
from mstkd_training.stages.targets import make_targets
from mstkd_training.stages.teacher import TeacherPlan, plan_teachers, train_teacher

RECIPE_FILE: Final = "recipe.yaml"
"""The recipe of the last run, in the pipeline's folder."""


def run_pipeline(
    recipe: Recipe,
    folder: Path,
    reporter: Reporter,
    *,
    use: Mapping[str, Path] | None = None,
    processes: Processes = ALONE,
    settings: LoopSettings = USUAL,
    watched: TestSet | None = None,
) -> Artifact:
    """Make every artifact that is missing or stale, and say why.

    Under `torchrun` every process calls this. Trainings are spread over the processes; the other
    stages are the first one's work.

    Args:
        recipe: What to do.
        folder: Where the artifacts go; created if missing. Processes on several machines need
            to share it.
        reporter: Where messages and progress go.
        use: Folders of teachers and of an adaptor to take instead of training them, by the name
            of the stage, such as `teacher_asian`.
        processes: This process among those of the run.
        settings: How the run is carried out.
        watched: Pairs that teachers and student are measured on after every epoch, for the logs
            alone; the first process reads them.

    Returns:
        The student.

    Raises:
        DataError: An artifact cannot be used, something else is in its place, or another
            pipeline is running in this folder.
        RecipeError: Training diverged.
        KeyboardInterrupt: Ctrl-C, or a polite end; the training's state is written.
    """
    pipeline = _Pipeline(recipe, folder, reporter, dict(use or {}), processes, settings, watched)
    if not processes.first:
        return pipeline.run()
    with only_one_in(folder):
        with atomic_path(folder / RECIPE_FILE) as temporary:
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            temporary.write_text(text, encoding="utf-8")
        return pipeline.run()


@contextmanager
def only_one_in(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself; the system frees it when the process ends.

    Raises:
        DataError: Another process holds it.
    """
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


class _Pipeline:
    """The stages of one run, in their order."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        reporter: Reporter,
        use: dict[str, Path],
        processes: Processes,
        settings: LoopSettings,
        watched: TestSet | None,
    ) -> None:
        self.recipe, self.folder, self.reporter = recipe, folder, reporter
        self.use, self.processes, self.settings = use, processes, settings
        self.watched = watched
        self.plans = plan_teachers(recipe.teacher, recipe.data.groups)
        known = [*(plan.name for plan in self.plans), "adaptor"]
        for name in use:
            if name not in known:
                raise DataError(f"--use {name}: there is no such stage; use {', '.join(known)}.")

    def run(self) -> Artifact:
        """Make what is missing or stale; return the student."""
        recipe, stage = self.recipe, self._stage
        data = stage("data", "data", recipe.data, (), lambda run: make_data(run, recipe.data))
        teachers = tuple(self._teacher(data, plan) for plan in self.plans)
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

    def _teacher(self, data: Artifact, plan: TeacherPlan) -> Artifact:
        section = self.recipe.teacher
        teacher = self._stage(
            "teacher",
            plan.name,
            section,
            (data,),
            lambda run: train_teacher(run, data, section, plan),
        )
        if plan.group is not None and teacher.manifest.groups != (plan.group,):
            raise DataError(
                f"{teacher.path}: a teacher of {', '.join(teacher.manifest.groups)}, needed is "
                f"one of {plan.group}. Correct --use {plan.name}=FOLDER."
            )
        return teacher

    def _stage(
        self,
        kind: Kind,
        name: str,
        section: Section,
        inputs: tuple[Artifact, ...],
        make: Callable[[StageRun], Artifact],
    ) -> Artifact:
        """Return the stage's artifact, made anew only where it has to be."""
        if name in self.use:
            artifact = Artifact.open(self.use[name], kind)
            self.reporter.message(f"{name}: uses {artifact.path} ({artifact.manifest.id})")
            return artifact
        run = StageRun(
            kind,
            name,
            self.folder,
            section,
            inputs,
            self.recipe.seed,
            self.recipe.preprocessing,
            self.reporter,
            self.processes,
            self.settings,
            self.watched,
        )
        return run.made(make)
