"""What every stage is given: its name, inputs, recipe section, seed and place."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from torch import Tensor

from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact, writing_artifact
from mstkd_training.checkpoint import Checkpoint
from mstkd_training.data.testset import TestSet
from mstkd_training.loop import ALONE, USUAL, LoopSettings, Processes, Task, fit
from mstkd_training.manifest import Kind, Manifest, digest_of
from mstkd_training.progress import Reporter
from mstkd_training.recipe import OptimiserSection, Section, SelectionSection

LOGS_FOLDER: Final = "logs"
"""Folder of the trainings' figures, in the pipeline's folder."""

_TRAINED: Final = ("teacher", "adaptor", "student")
"""Kinds that all processes work on; the first one alone makes the others."""

_REVISION = 2
"""Raised when a stage's code changes what it makes, so that old artifacts count as stale."""


@dataclass(frozen=True)
class StageRun:
    """One run of one stage.

    Attributes:
        kind: Kind of the artifact that it leaves.
        name: Name of that artifact.
        folder: The pipeline's folder; the artifact goes to `folder / name`.
        section: The stage's section of the recipe.
        inputs: The artifacts that it reads, in their order.
        recipe_seed: The recipe's seed.
        preprocessing: How networks see faces.
        reporter: Where messages and progress go.
        processes: This process among those of the run.
        settings: How the run is carried out.
        watched: Pairs that networks of faces are measured on while they are trained, for the
            logs alone.
    """

    kind: Kind
    name: str
    folder: Path
    section: Section
    inputs: tuple[Artifact, ...]
    recipe_seed: int
    preprocessing: Preprocessing
    reporter: Reporter
    processes: Processes = ALONE
    settings: LoopSettings = USUAL
    watched: TestSet | None = None

    @property
    def target(self) -> Path:
        """The artifact's folder."""
        return self.folder / self.name

    @property
    def seed(self) -> int:
        """The stage's own seed, 0 to 2**31 - 1, derived from the recipe's seed and the name."""
        return derive_seed(self.recipe_seed, self.name)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the stage makes."""
        return digest_of(
            {
                "revision": _REVISION,
                "kind": self.kind,
                "name": self.name,
                "section": self.section.model_dump(mode="json"),
                "inputs": [artifact.manifest.id for artifact in self.inputs],
                "seed": self.seed,
                "preprocessing": self.preprocessing.model_dump(mode="json"),
            }
        )

    @property
    def checkpoint(self) -> Checkpoint:
        """Where a stage that trains keeps its state until its artifact is written."""
        return Checkpoint(self.folder / f".{self.name}.checkpoint.pt", self.fingerprint)

    def made(self, make: Callable[[Self], Artifact]) -> Artifact:
        """Return the stage's artifact, made anew only where it has to be, and say why.

        Args:
            make: Does the stage's work.
        """
        processes = self.processes
        reason = processes.told(self.why_stale() if processes.first else None)
        if reason is None:
            self.reporter.message(f"{self.name}: up to date")
            return Artifact.open(self.target, self.kind)
        self.reporter.message(f"{self.name}: runs ({reason})")
        if self.kind in _TRAINED:
            return make(self)
        artifact = make(self) if processes.first else None
        processes.wait()
        return artifact or Artifact.open(self.target, self.kind)

    def fit(
        self, task: Task, section: OptimiserSection, selection: SelectionSection
    ) -> dict[str, float]:
        """Train with this stage's seed and checkpoint; see `loop.fit`."""
        return fit(
            task,
            section=section,
            selection=selection,
            seed=self.seed,
            checkpoint=self.checkpoint,
            reporter=self.reporter,
            processes=self.processes,
            settings=self.settings,
            logs=self.folder / LOGS_FOLDER,
        )

    def keep(self, weights: Mapping[str, Tensor], **manifest: Any) -> Artifact:
        """Write the artifact of a trained network and remove its checkpoint.

        The first process writes, the others wait for it.

        Args:
            weights: The state dictionary.
            **manifest: Fields of the manifest that depend on the network.
        """
        if self.processes.first:
            with writing_artifact(self.target) as draft:
                draft.save_weights(weights)
                draft.finish(**self.manifest(), preprocessing=self.preprocessing, **manifest)
            self.checkpoint.remove()
        self.processes.wait()
        return Artifact.open(self.target, self.kind)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest's fields that do not depend on what the stage computes."""
        return {
            "kind": self.kind,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "inputs": {entry.manifest.name: entry.manifest.id for entry in self.inputs},
            "recipe": self.section.model_dump(mode="json"),
            "seed": self.seed,
        }

    def why_stale(self) -> str | None:
        """Say why the stage has to run; None where its artifact is there and up to date."""
        if not self.target.exists():
            return "no artifact yet"
        try:
            manifest = Artifact.open(self.target, self.kind).manifest
        except DataError as error:
            return f"its artifact cannot be used: {error}"
        if "imported" in manifest.recipe:
            raise DataError(
                f"{self.target}: imported from {manifest.recipe['imported']}; training would "
                f"replace it. Say --use {self.name}={self.target} to use it, or remove it."
            )
        if manifest.fingerprint == self.fingerprint:
            return None
        return self._difference(manifest)

    def _difference(self, old: Manifest) -> str:
        for artifact in self.inputs:
            name = artifact.manifest.name
            if old.inputs.get(name) != artifact.manifest.id:
                return f"its input {name} is new"
        before = _flat(old.recipe)
        now = _flat(self.section.model_dump(mode="json"))
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return f"recipe changed: {key} {before.get(key)} -> {now.get(key)}"
        if old.seed != self.seed:
            return "recipe changed: seed"
        return "its inputs' order, the preprocessing or the stage's code changed"


def derive_seed(recipe_seed: int, purpose: str) -> int:
    """Return a seed for one purpose, 0 to 2**31 - 1; different purposes get unrelated ones."""
    digest = hashlib.sha256(f"{recipe_seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
