"""The release gate: limits that a model's metrics must keep.

A gate file names figures by their place in `metrics.json`, `*` standing for every group:

    global.std: {max: 1.5}
    groups.*.accuracy: {min: 90}
    groups.*.tar_at_far.1e-2.tar: {min: 0.8}
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from mstkd_serve.errors import DataError
from mstkd_serve.fairness.schema import Metrics


class Limit(BaseModel):
    """The range that a figure must keep; at least one end."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min: float | None = None
    max: float | None = None


class Gate(RootModel[dict[str, Limit]]):
    """Limits by the place of their figure."""


def load_gate(path: Path) -> Gate:
    """Read a gate file (YAML, of which JSON is a part).

    Raises:
        DataError: It is missing, malformed or empty.
    """
    try:
        import yaml
    except ImportError as error:
        raise DataError(f"{path}: gates need pip install 'mstkd-serve[report]'.") from error
    try:
        gate = Gate.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"--gate {path}: cannot be read ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"--gate {path}: {place}: {first['msg']}.") from error
    if not gate.root or any(limit.min is limit.max is None for limit in gate.root.values()):
        raise DataError(f"--gate {path}: give at least one figure, each with min or max.")
    return gate


def broken_limits(gate: Gate, metrics: Metrics) -> list[str]:
    """Return a sentence for each limit that is broken.

    A figure that is undefined, or a rate that its group's impostor pairs cannot support, breaks
    its limit: neither proves anything.

    Raises:
        DataError: A figure named in the gate does not exist.
    """
    tree = metrics.model_dump(mode="json", by_alias=True)
    broken = []
    for pattern, limit in gate.root.items():
        found = _find(tree, pattern.split("."))
        if not found:
            raise DataError(f"the gate's {pattern!r} is no figure of metrics.json.")
        for place, value in found.items():
            if not isinstance(value, int | float):
                broken.append(f"{place} is undefined")
            elif not _supported(tree, place):
                broken.append(f"{place} has too few impostor pairs to be known")
            elif limit.max is not None and value > limit.max:
                broken.append(f"{place} is {value:.6g}, above {limit.max:g}")
            elif limit.min is not None and value < limit.min:
                broken.append(f"{place} is {value:.6g}, below {limit.min:g}")
    return broken


def _supported(tree: Any, place: str) -> bool:
    """Tell whether a figure does not stand beside a `supported` that is false."""
    for step in place.split(".")[:-1]:
        tree = tree[step]
    return bool(tree.get("supported", True))


def _find(tree: Any, steps: list[str], place: str = "") -> dict[str, Any]:
    """Return the values at a path by their full place; `*` takes every key."""
    if not steps:
        return {place: tree} if not isinstance(tree, dict | list) else {}
    if not isinstance(tree, dict):
        return {}
    keys = list(tree) if steps[0] == "*" else [steps[0]]
    found: dict[str, Any] = {}
    for key in keys:
        if key in tree:
            found |= _find(tree[key], steps[1:], f"{place}.{key}" if place else key)
    return found
