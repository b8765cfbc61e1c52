"""Train every arm on every seed, each artifact once, and measure it.

A seed's folder holds its `data`; in it a folder for each kind of teachers with these and their
`embeddings`; in that one for each adaptor with `adaptor` and `targets`; in that one for each
student. What arms share is trained once. All of it are the pipeline's own stages and artifacts:
up to date ones are not made again, and a killed run goes on where it was.
"""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import yaml

from mstkd_serve.files import atomic_path
from mstkd_training.adaptors import ADAPTORS
from mstkd_training.artifact import Artifact
from mstkd_training.experiment.arms import (
    KINDS,
    LEARNERS,
    Arm,
    TeacherKind,
    adaptor_section,
    require_suitable,
    student_section,
    teacher_section,
)
from mstkd_training.experiment.figures import Examiner, Result
from mstkd_training.manifest import Kind
from mstkd_training.pipeline import RECIPE_FILE, only_one_in
from mstkd_training.progress import Bar, Reporter
from mstkd_training.recipe import Recipe, Section
from mstkd_training.stages.adaptor import train_adaptor
from mstkd_training.stages.data import make_data
from mstkd_training.stages.embeddings import make_embeddings
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.student import train_student
from mstkd_training.stages.targets import make_targets
from mstkd_training.stages.teacher import plan_teachers, train_teacher


def run_experiment(recipe: Recipe, folder: Path, seeds: int, reporter: Reporter) -> list[Result]:
    """Train and measure all arms.

    Args:
        recipe: Its teachers' kind, its adaptor's name and its student's loss are replaced by
            each arm's.
        folder: Where the artifacts go; created if missing.
        seeds: How many seeds, counted up from the recipe's. A seed decides which faces are
            rendered to train and to test on, how networks start, and the order of samples.
        reporter: Where messages and progress go.

    Returns:
        A result for each seed and arm.

    Raises:
        RecipeError: The recipe does not suit the experiment, or a training diverged.
        DataError: An artifact cannot be used, or another run is going on in this folder.
        KeyboardInterrupt: Ctrl-C, or a polite end; the training's state is written.
    """
    require_suitable(recipe)
    with only_one_in(folder):
        with atomic_path(folder / RECIPE_FILE) as temporary:
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            temporary.write_text(text, encoding="utf-8")
        results: list[Result] = []
        for seed in range(recipe.seed, recipe.seed + seeds):
            own = recipe.model_copy(update={"seed": seed})
            results += _Seed(own, folder / f"seed_{seed}", reporter).run()
        return results


class _Seed:
    """All arms of one seed."""

    def __init__(self, recipe: Recipe, folder: Path, reporter: Reporter) -> None:
        self.recipe, self.folder, self.reporter = recipe, folder, reporter
        self.examiner = Examiner(recipe, folder)

    def run(self) -> list[Result]:
        """Make what is missing or stale, and measure it."""
        data = self._stage("data", "data", "", self.recipe.data).made(
            lambda run: make_data(run, self.recipe.data)
        )
        return [result for kind in KINDS for result in self._taught_by(kind, data)]

    def _taught_by(self, kind: TeacherKind, data: Artifact) -> list[Result]:
        recipe = self.recipe
        section = teacher_section(recipe, kind)
        teachers = [
            self._stage("teacher", plan.name, kind, section, data).made(
                partial(train_teacher, data=data, section=section, plan=plan)
            )
            for plan in plan_teachers(section, recipe.data.groups)
        ]
        embeddings = self._stage(
            "embeddings", "embeddings", kind, recipe.embeddings, data, *teachers
        ).made(lambda run: make_embeddings(run, data, teachers, recipe.embeddings))
        return [
            result
            for adaptor in ADAPTORS
            for result in self._adapted(kind, adaptor, data, teachers, embeddings)
        ]

    def _adapted(
        self,
        kind: TeacherKind,
        name: str,
        data: Artifact,
        teachers: list[Artifact],
        embeddings: Artifact,
    ) -> list[Result]:
        recipe, place = self.recipe, f"{kind}/{name}"
        section = adaptor_section(recipe, name)
        adaptor = self._stage("adaptor", "adaptor", place, section, data, embeddings).made(
            lambda run: train_adaptor(run, data, embeddings, section)
        )
        targets = self._stage(
            "targets", "targets", place, recipe.targets, embeddings, adaptor
        ).made(lambda run: make_targets(run, embeddings, adaptor, recipe.targets))
        results = []
        for learner in LEARNERS:
            arm = Arm(kind, name, learner)
            path = self.folder / arm.folder / "figures.json"
            if learner == "none":
                figures = self.examiner.adaptor(path, adaptor, teachers)
            else:
                wanted = student_section(recipe, learner)
                student = self._stage("student", "student", arm.folder, wanted, data, targets).made(
                    partial(train_student, data=data, targets=targets, section=wanted)
                )
                figures = self.examiner.student(path, student)
            results.append(Result(recipe.seed, arm, figures))
        return results

    def _stage(
        self, kind: Kind, name: str, place: str, section: Section, *inputs: Artifact
    ) -> StageRun:
        """Return a stage whose artifact lies at a place in the seed's folder.

        Stages of one name draw the same random numbers in all arms of a seed, which then differ
        in nothing but what is compared.
        """
        return StageRun(
            kind,
            name,
            self.folder / place,
            section,
            inputs,
            self.recipe.seed,
            self.recipe.preprocessing,
            _Placed(self.reporter, f"seed {self.recipe.seed} {place}".rstrip()),
        )


class _Placed:
    """Says before each message which arm it is about."""

    def __init__(self, reporter: Reporter, place: str) -> None:
        self._reporter, self._place = reporter, place

    def message(self, text: str) -> None:
        """Say one line."""
        self._reporter.message(f"{self._place}, {text}")

    def bar(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Bar]:
        """Open a progress bar."""
        return self._reporter.bar(title, total, done)
