"""The test set that a finished pipeline's recipe names."""

from pathlib import Path

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact
from mstkd_training.data.pairs import make_pairs
from mstkd_training.data.rendered import render_faceset
from mstkd_training.data.split import validation_pairs
from mstkd_training.data.testset import TestSet, bins_test_set, listed_test_set
from mstkd_training.pipeline import RECIPE_FILE
from mstkd_training.recipe import Recipe
from mstkd_training.recipe_file import load_recipe
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.run import derive_seed


def load_test_set(folder: Path) -> TestSet:
    """Read or render the faces and pairs that the recipe in a folder tests on.

    Deterministic: the recipe decides. Rendered identities come from another seed than those of
    training, so that none of them was ever seen.

    Args:
        folder: A folder that `run_pipeline` wrote.

    Raises:
        DataError: The folder holds no recipe, or the test faces cannot be used.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        raise DataError(
            f"{folder}: no {RECIPE_FILE}, so no pipeline ran here. "
            "Run mstkd-train pipeline first, or give its --out folder."
        )
    return test_set_of(load_recipe(str(path)), folder)


def test_set_of(recipe: Recipe, folder: Path) -> TestSet:
    """Read or render the faces and pairs that a recipe tests on.

    Args:
        recipe: The recipe.
        folder: Where its pipeline's artifacts are; only a test on held-out identities reads them.

    Raises:
        DataError: The test faces cannot be used.
    """
    test = recipe.test
    if test.source == "bin" and test.files is not None:
        return bins_test_set(test.files)
    if test.source == "pairs" and test.path is not None:
        return listed_test_set(test.path)
    return _drawn(recipe, folder)


def _drawn(recipe: Recipe, folder: Path) -> TestSet:
    """Return faces with pairs that are drawn among them."""
    test, seed = recipe.test, derive_seed(recipe.seed, "test")
    genuine, impostor = test.genuine_per_group or 0, test.impostor_per_group or 0
    if test.source == "held_out":
        held_out = read_faces(Artifact.open(folder / "data", "data"))
        return TestSet(held_out, validation_pairs(held_out, genuine, impostor, seed)).trimmed()
    faces = render_faceset(
        group_names=recipe.data.groups,
        identities_per_group=test.identities_per_group or 0,
        images_per_identity=test.images_per_identity or 0,
        seed=seed,
        nuisance_strength=recipe.data.nuisance_strength,
    )
    return TestSet(faces, make_pairs(faces, genuine, impostor, seed=seed))
