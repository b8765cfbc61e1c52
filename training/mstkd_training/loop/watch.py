"""What a training leaves to look at: a CSV row an epoch, and TensorBoard events where wanted."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mstkd_serve.errors import RecipeError
from mstkd_serve.files import atomic_path

Row = dict[str, float]
"""Figures of one epoch, by column."""


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write all epochs so far as CSV; a column that an epoch lacks stays empty there."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)


class Events:
    """TensorBoard event files of one training, or nothing.

    Args:
        folder: Where they go; None writes none.
        done: Steps that are done; events of later ones, left by a run that was killed, are
            hidden.

    Raises:
        RecipeError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None, done: int = 0) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RecipeError(
                "--tensorboard: TensorBoard is not installed. Say: "
                "pip install 'mstkd-training[tensorboard]', or leave the option out."
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars of one step, counted from the start of training."""
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            self._writer.close()
