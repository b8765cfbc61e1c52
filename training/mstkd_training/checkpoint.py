"""Checkpoints: where a killed training run goes on."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mstkd_serve.errors import DataError
from mstkd_serve.files import atomic_path


@dataclass(frozen=True)
class Checkpoint:
    """The file that holds a training's state.

    Attributes:
        path: The file.
        fingerprint: Hash of what is being trained. A checkpoint of something else is ignored.
    """

    path: Path
    fingerprint: str

    def load(self) -> dict[str, Any] | None:
        """Return the stored state, or None where there is none for this fingerprint.

        Raises:
            DataError: The file cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            fingerprint = state.pop("fingerprint")
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise DataError(
                f"{self.path}: this checkpoint cannot be read ({type(error).__name__}). "
                "Remove it; the stage then starts from its first epoch."
            ) from error
        return state if fingerprint == self.fingerprint else None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the stored state.

        Args:
            state: Tensors, numbers, strings and containers of these; nothing else is read back.
        """
        with atomic_path(self.path) as temporary:
            torch.save(state | {"fingerprint": self.fingerprint}, temporary)

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)
