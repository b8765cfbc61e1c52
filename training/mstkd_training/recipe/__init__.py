"""What a recipe may say: every number of a training run, validated."""

from mstkd_training.recipe.data import (
    DataSection,
    EmbeddingsSection,
    TargetsSection,
    TestSection,
    ValidationSection,
)
from mstkd_training.recipe.networks import BackboneSection, HeadSection
from mstkd_training.recipe.optimiser import OptimiserSection, SelectionSection
from mstkd_training.recipe.section import Section
from mstkd_training.recipe.stages import AdaptorSection, Recipe, StudentSection, TeacherSection

__all__ = [
    "AdaptorSection",
    "BackboneSection",
    "DataSection",
    "EmbeddingsSection",
    "HeadSection",
    "OptimiserSection",
    "Recipe",
    "Section",
    "SelectionSection",
    "StudentSection",
    "TargetsSection",
    "TeacherSection",
    "TestSection",
    "ValidationSection",
]
