from pathlib import Path

import pytest

from mstkd_training.experiment import Result, run_experiment, write_results
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import Recipe
from mstkd_training.recipe_file import load_recipe

SETTINGS = (
    "data.validation.share=0.0",
    "data.images_per_identity=3",
    "teacher.optimiser.epochs=1",
    "teacher.optimiser.steps=[]",
    "adaptor.optimiser.epochs=1",
    "adaptor.optimiser.steps=[]",
    "student.optimiser.epochs=1",
    "student.optimiser.steps=[]",
    "student.loss=eaf-kd",
    "student.head={scale: 16.0, margin_mean: 0.1, margin_std: 0.01}",
    "test.identities_per_group=6",
    "test.genuine_per_group=16",
    "test.impostor_per_group=16",
)
SEEDS = 2


@pytest.fixture(scope="session")
def settings() -> tuple[str, ...]:
    """What is changed of the recipe `smoke`: an experiment of seconds, without a meaning."""
    return SETTINGS


@pytest.fixture(scope="session")
def tiny(settings: tuple[str, ...]) -> Recipe:
    return load_recipe("smoke", settings)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Recipe) -> tuple[Path, list[Result]]:
    """The folder and results of a finished experiment; read-only by convention."""
    folder = tmp_path_factory.mktemp("experiment") / "out"
    results = run_experiment(tiny, folder, SEEDS, SilentReporter())
    write_results(folder, results)
    return folder, results
