import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in mstkd_training.cli

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import Recipe
from mstkd_training.recipe_file import load_recipe


@pytest.fixture(scope="session")
def smoke() -> Recipe:
    return load_recipe("smoke")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, smoke: Recipe) -> Path:
    """A folder in which the smoke recipe ran to its end; read-only by convention."""
    folder = tmp_path_factory.mktemp("run") / "smoke"
    run_pipeline(smoke, folder, SilentReporter())
    return folder


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def weights_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    def read(artifact: Path) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = torch.load(artifact / "weights.pt", weights_only=True)
        return state

    return read
