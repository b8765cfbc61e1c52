"""Train one network: SGD, learning-rate steps, clipping, mixed precision, processes, resume."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from mstkd_training.checkpoint import Checkpoint
from mstkd_training.loop.engine import Engine
from mstkd_training.loop.interrupt import stop_requests
from mstkd_training.loop.order import batches, loaded, parts_of, require_large_enough
from mstkd_training.loop.processes import Processes
from mstkd_training.loop.settings import LoopSettings
from mstkd_training.loop.task import Task
from mstkd_training.loop.validation import score_of
from mstkd_training.loop.watch import Events, Row, write_history
from mstkd_training.progress import Bar, Reporter
from mstkd_training.recipe import OptimiserSection, SelectionSection

_SHOW_EVERY: Final = 20  # steps between readings of a GPU's numbers, which wait for it

WATCHED: Final = "watched_"
"""Before the names of figures that have no say."""

_LOGGED_ONLY: Final = ("images_per_s", "learning_rate", WATCHED)


def fit(
    task: Task,
    *,
    section: OptimiserSection,
    selection: SelectionSection,
    seed: int,
    checkpoint: Checkpoint,
    reporter: Reporter,
    processes: Processes,
    settings: LoopSettings,
    logs: Path,
) -> dict[str, float]:
    """Train `task.module` in place, and leave the best epoch's weights in `task.result`.

    Every epoch visits every sample once, in random order, each flipped left to right with
    probability 1/2. Order, flips, margins and dropout are functions of seed, epoch and step, and
    the learning rate one of the epoch; so weights, optimiser, loss scale and the place in the
    epoch are the whole state. It is written after every epoch, now and then in between, and on
    Ctrl-C. A run that was killed goes on from there, on any number of processes; on the same
    number, CPU and fp32, it ends with the same weights as one that was not, to the last bit. The
    caller's own random state is left as it was.

    Args:
        task: What is trained, on what.
        section: The optimiser's part of the recipe.
        selection: How the best epoch is chosen.
        seed: Seed of order, flips, margins and dropout.
        checkpoint: Where to write the state; removing it afterwards is the caller's.
        reporter: Where progress goes.
        processes: This process among those of the run; all of them must call this.
        settings: When the state is written, and whether TensorBoard is.
        logs: Folder for `<name>.csv`, a row an epoch.

    Returns:
        The figures of the chosen epoch: its number as `epoch`, the training means `loss` and
        what `task.step` showed, the validation's figures and their `score`.

    Raises:
        RecipeError: The loss stopped being a finite number, or batches are too small.
        KeyboardInterrupt: Ctrl-C, or a polite end; the state is written.
    """
    require_large_enough(
        task.name, task.samples, section.batch_size, section.accumulate * processes.world
    )
    devices = [processes.device] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        engine = Engine(task, section, seed, processes)
        return _Training(engine, selection, checkpoint, reporter, settings, logs).run()


class _Training:
    """The course of one training: epochs, figures, the best weights, the written state."""

    def __init__(
        self,
        engine: Engine,
        selection: SelectionSection,
        checkpoint: Checkpoint,
        reporter: Reporter,
        settings: LoopSettings,
        logs: Path,
    ) -> None:
        self.engine, self.task = engine, engine.task
        self.section, self.processes = engine.section, engine.processes
        self.selection, self.checkpoint, self.reporter = selection, checkpoint, reporter
        self.settings, self.logs = settings, logs
        self.epoch, self.step = 0, 0
        self.rows: list[Row] = []
        self.best: dict[str, Any] = {}
        self.written = time.monotonic()

    def run(self) -> dict[str, float]:
        """Train to the end and return the chosen epoch's figures."""
        task, epochs = self.task, self.section.epochs
        self._restore()
        order = self._order()
        wanted = self.settings.tensorboard and self.processes.first
        events = Events(
            self.logs / "tensorboard" / task.name if wanted else None,
            self.epoch * len(order) + self.step,
        )
        done = self.epoch * task.samples + sum(len(batch) for batch, _ in order[: self.step])
        try:
            with (
                self.reporter.bar(task.name, task.samples * epochs, done) as bar,
                stop_requests() as stopped,
            ):
                while self.epoch < epochs:
                    self._run_epoch(bar, stopped, events)
        finally:
            events.close()
        task.module.eval()
        if not self.processes.first:
            return {}
        task.result.load_state_dict(self.best["weights"])
        row = self.rows[self.best["row"]]
        if "score" in row:
            self.reporter.message(
                f"{task.name}: keeps epoch {row['epoch']:.0f} of {epochs}, on held-out identities "
                f"{row['accuracy_mean']:.2f} % right, STD {row['accuracy_std']:.2f}"
            )
        return {key: value for key, value in row.items() if not key.startswith(_LOGGED_ONLY)}

    def _order(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return batches(self.task.samples, self.section.batch_size, self.engine.seed, self.epoch)

    def _run_epoch(self, bar: Bar, stopped: Callable[[], bool], events: Events) -> None:
        order, processes = self._order(), self.processes
        self.engine.start_epoch(self.epoch)
        parts = (
            part
            for batch in order[self.step :]
            for part in parts_of(batch, self.section.accumulate, processes.rank, processes.world)
        )
        started, seen = time.monotonic(), 0
        for part, tensors in loaded(parts, self.task):
            means = self.engine.compute(self.epoch, self.step, part, tensors)
            if not part.last:
                continue
            self.engine.update()
            self.step += 1
            seen += part.total
            shown: dict[str, float] | None = None
            if processes.device.type == "cpu" or self.step % _SHOW_EVERY == 0:
                shown = {key: float(value) for key, value in means.items()}
                if self.step % _SHOW_EVERY == 0:
                    events.add(self.epoch * len(order) + self.step, shown)
                shown = {"epoch": self.epoch + 1, **shown}
            bar.advance(part.total, shown)
            if self.step < len(order):
                self._write_if_due(stopped)
        row = self._finish_epoch(seen / max(time.monotonic() - started, 1e-9))
        events.add(self.epoch * len(order), {f"epoch/{key}": v for key, v in row.items()})
        if self._any_process(stopped()) == [True]:
            self.reporter.message(
                f"{self.task.name}: stopped after epoch {self.epoch}; its state is kept"
            )
            raise KeyboardInterrupt

    def _finish_epoch(self, speed: float) -> Row:
        """Validate, note the figures, keep the best weights, write the state."""
        sums = self.engine.common_sums()
        row = {
            "epoch": float(self.epoch + 1),
            "learning_rate": self.section.learning_rate_in(self.epoch),
            "images_per_s": speed,
            **{key: total / self.task.samples for key, total in sums.items()},
        }
        self.epoch, self.step, self.engine.sums = self.epoch + 1, 0, {}
        if self.processes.first:
            self._validate(row)
            self.rows.append(row)
            write_history(self.logs / f"{self.task.name}.csv", self.rows)
        self._write({})
        return row

    def _validate(self, row: Row) -> None:
        """Add the validation's figures to the row; keep the weights if they are the best."""
        last = self.epoch == self.section.epochs
        due = last or self.epoch % self.selection.every_epochs == 0
        better = last and self.task.validate is None
        self.task.result.eval()
        if self.task.watch and due:
            row |= {f"{WATCHED}{key}": value for key, value in self.task.watch().items()}
        if self.task.validate and due:
            row |= self.task.validate()
            row["score"] = score_of(row, self.selection.std_weight)
            better = row["score"] >= self.best.get("score", -math.inf)
        if better:
            weights = self.task.result.state_dict()
            self.best = {
                "score": row.get("score", -math.inf),
                "row": len(self.rows),
                "weights": {key: value.detach().cpu().clone() for key, value in weights.items()},
            }

    def _write_if_due(self, stopped: Callable[[], bool]) -> None:
        """Write the state within an epoch where that is due; stop where that was asked for."""
        waited = time.monotonic() - self.written > 60 * self.settings.checkpoint_minutes
        stop, due = self._any_process(stopped(), waited and self.processes.first)
        every = self.settings.checkpoint_steps
        if stop or due or (every is not None and self.step % every == 0):
            self._write(self.engine.common_sums())
        if stop:
            self.reporter.message(
                f"{self.task.name}: stopped in epoch {self.epoch + 1} after step {self.step}; "
                "its state is kept"
            )
            raise KeyboardInterrupt

    def _any_process(self, *said: bool) -> list[bool]:
        """Return for each statement whether it is true in any process; all of them must ask."""
        return [bool(count) for count in self.processes.sums(torch.tensor(said).float())]

    def _write(self, sums: dict[str, float]) -> None:
        """Write the state; `sums` are those of the epoch so far, of all processes."""
        self.written = time.monotonic()
        if self.processes.first:
            place = {"epoch": self.epoch, "step": self.step, "sums": sums}
            watched = {"rows": self.rows, "best": self.best}
            self.checkpoint.save(self.engine.state() | place | watched)

    def _restore(self) -> None:
        """Go back to the written state, if there is one."""
        state = self.checkpoint.load()
        if state is None:
            return
        self.engine.restore(state, state["sums"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.rows, self.best = state["rows"], state["best"]
        after = f"after epoch {self.epoch} of {self.section.epochs}"
        if self.step:
            after = f"in epoch {self.epoch + 1} of {self.section.epochs}, after step {self.step}"
        self.reporter.message(f"{self.task.name}: goes on {after}")
