"""What is compared: every kind of teachers, under every adaptor, with every kind of student."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal

from mstkd_serve.errors import RecipeError
from mstkd_training.adaptors import ADAPTORS
from mstkd_training.recipe import AdaptorSection, Recipe, StudentSection, TeacherSection

TeacherKind = Literal["specialised", "generalist"]
Learner = Literal["none", "a-kd", "eaf-kd"]

KINDS: Final[tuple[TeacherKind, ...]] = ("specialised", "generalist")
LEARNERS: Final[tuple[Learner, ...]] = ("none", "a-kd", "eaf-kd")


@dataclass(frozen=True)
class Arm:
    """One way to get an embedding.

    Attributes:
        teachers: Which teachers there are.
        adaptor: Name of the adaptor on them.
        student: The student's loss; `none` measures teachers and adaptor themselves.
    """

    teachers: TeacherKind
    adaptor: str
    student: Learner

    @property
    def method(self) -> tuple[str, Learner]:
        """What two arms of different teachers share."""
        return self.adaptor, self.student

    @property
    def folder(self) -> str:
        """Where its artifacts lie within a seed's folder."""
        return f"{self.teachers}/{self.adaptor}/{self.student}"


ARMS: Final = tuple(
    Arm(kind, adaptor, learner) for adaptor, learner, kind in product(ADAPTORS, LEARNERS, KINDS)
)
"""All arms; those that differ in their teachers alone stand side by side."""


def require_suitable(recipe: Recipe) -> None:
    """Refuse a recipe that has not all that the arms need.

    Raises:
        RecipeError: Faces are not rendered, or the student has no head for EAF-KD.
    """
    for name, source in (("data", recipe.data.source), ("test", recipe.test.source)):
        if source != "rendered":
            raise RecipeError(
                f"{name}.source is {source}: every seed of the experiment draws faces of its own, "
                f"so that it needs {name}.source=rendered."
            )
    if recipe.student.head is None:
        raise RecipeError(
            "student.head is missing: the experiment trains EAF-KD students beside a-KD ones. Add "
            "--set student.loss=eaf-kd "
            "--set 'student.head={scale: 32.0, margin_mean: 0.3, margin_std: 0.03}'."
        )


def teacher_section(recipe: Recipe, kind: TeacherKind) -> TeacherSection:
    """Return the recipe's teachers, of one kind."""
    return TeacherSection.model_validate(_with(recipe.teacher.model_dump(), kind=kind))


def adaptor_section(recipe: Recipe, name: str) -> AdaptorSection:
    """Return the recipe's adaptor, with another architecture."""
    return AdaptorSection.model_validate(_with(recipe.adaptor.model_dump(), name=name))


def student_section(recipe: Recipe, loss: Learner) -> StudentSection:
    """Return the recipe's student, with another loss; a-KD has no head."""
    changed = {"loss": loss} | ({"head": None} if loss == "a-kd" else {})
    return StudentSection.model_validate(_with(recipe.student.model_dump(), **changed))


def _with(values: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    return {**values, **changed}
