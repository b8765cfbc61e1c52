"""Read recipes: from this package or a file, with overrides from the command line."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mstkd_serve.errors import RecipeError
from mstkd_training.recipe import Recipe


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: The name of a recipe in this package (`demo`), or a YAML file.
        overrides: `key=value` pairs; the key is a path with dots, such as
            `student.optimiser.epochs`, the value is YAML.

    Raises:
        RecipeError: The recipe is unknown, not YAML, or has a field that does not fit.
    """
    folder = files("mstkd_training").joinpath("recipes")
    packaged = folder.joinpath(f"{name_or_path}.yaml")
    path = Path(name_or_path)
    try:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
        elif path.name == name_or_path and packaged.is_file():
            text = packaged.read_text(encoding="utf-8")
        else:
            names = sorted(e.name[:-5] for e in folder.iterdir() if e.name.endswith(".yaml"))
            raise RecipeError(
                f"recipe {name_or_path}: neither a known recipe ({', '.join(names)}) nor a file."
            )
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"recipe {name_or_path}: not a YAML file ({reason}).") from error
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {name_or_path}: it must be a mapping of sections.")
    for override in overrides:
        _override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such field; correct its name or remove it"
        elif problem["type"] == "missing":
            message = "this field is missing; add it"
        else:
            message = f"{message}; got {problem['input']!r}"
        raise RecipeError(f"recipe {name_or_path}: {field}: {message}.") from error


def _override(values: dict[str, Any], override: str) -> None:
    """Set one field in place."""
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise RecipeError(f"--set {override}: give key=value, such as student.optimiser.epochs=20.")
    section: Any = values
    for part in parts[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise RecipeError(f"--set {override}: {part} is a value, not a section.")
    try:
        section[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: the value is not YAML.") from error
