"""What computes and updates: the network on its device, the optimiser, the scaled loss."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mstkd_serve.errors import RecipeError
from mstkd_training.embedding import PRECISIONS
from mstkd_training.heads.noise import key_to_seed, samples_of_a_batch
from mstkd_training.loop.layers import prepare_layers
from mstkd_training.loop.order import Part
from mstkd_training.loop.processes import Processes
from mstkd_training.loop.task import StepResult, Task
from mstkd_training.recipe import OptimiserSection

_NOISE, _OTHER = 2, 3


class _Stepping(nn.Module):
    """The computation of one batch as a module, which is what torch can distribute."""

    def __init__(self, task: Task, device: torch.device, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.trained = task.module
        self._step = task.step
        self._device = device.type
        self._dtype = dtype

    def forward(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(self._device, self._dtype, enabled=self._dtype is not None):
            result: StepResult = self._step(*batch)
        return result.loss, dict(result.shown)


class Engine:
    """One network in training.

    Attributes:
        sums: Sums over this process's samples of the epoch so far, by what is shown.

    Args:
        task: What is trained; its module is moved and its layers replaced in place.
        section: The optimiser's part of the recipe.
        seed: Seed of margins and dropout.
        processes: This process among those of the run.
    """

    def __init__(
        self, task: Task, section: OptimiserSection, seed: int, processes: Processes
    ) -> None:
        self.task, self.section, self.seed, self.processes = task, section, seed, processes
        several = processes.world > 1
        task.module.to(processes.device)
        prepare_layers(task.module, synchronise=several and section.sync_batch_norm)
        self._stepping: nn.Module = _Stepping(task, processes.device, PRECISIONS[section.precision])
        if several:
            self._stepping = DistributedDataParallel(self._stepping)
        self._parameters = [entry for entry in task.module.parameters() if entry.requires_grad]
        self._optimiser = torch.optim.SGD(
            self._parameters,
            lr=section.learning_rate,
            momentum=section.momentum,
            weight_decay=section.weight_decay,
        )
        self._scaler = torch.amp.GradScaler(
            processes.device.type, enabled=section.precision == "fp16"
        )
        self.sums: dict[str, Tensor] = {}

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate of an epoch, counted from 0, and training mode."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.section.learning_rate_in(epoch)
        self.task.module.train()

    def compute(
        self, epoch: int, step: int, part: Part, tensors: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        """Add the gradients of one part of a batch; return its means, `loss` and what is shown."""
        count = len(part.indices)
        torch.manual_seed(key_to_seed(self.seed, _OTHER, epoch, step, part.first))
        waiting: Any = nullcontext()
        if isinstance(self._stepping, DistributedDataParallel) and not part.last:
            waiting = self._stepping.no_sync()
        noise = samples_of_a_batch((self.seed, _NOISE, epoch, step), part.total, part.first)
        with waiting, noise:
            batch = [entry.to(self.processes.device, non_blocking=True) for entry in tensors]
            loss, shown = self._stepping(*batch)
            # Gradients are averaged over processes, whose parts may differ in size by one.
            share = count * self.processes.world / part.total
            self._scaler.scale(loss * share).backward()
        means = {"loss": loss.detach(), **{key: value.detach() for key, value in shown.items()}}
        for key, value in means.items():
            added = value.double() * count
            self.sums[key] = self.sums[key] + added if key in self.sums else added
        return means

    def update(self) -> None:
        """Let the optimiser step, and clear the gradients."""
        self._scaler.unscale_(self._optimiser)
        nn.utils.clip_grad_norm_(self._parameters, self.section.clip_norm)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)

    def common_sums(self) -> dict[str, float]:
        """Return the sums over all processes; all of them must ask.

        Raises:
            RecipeError: One of them is not a finite number.
        """
        if not self.sums:
            return {}
        total = self.processes.sums(torch.stack([value.cpu() for value in self.sums.values()]))
        sums = dict(zip(self.sums, total.tolist(), strict=True))
        if not all(math.isfinite(value) for value in sums.values()):
            raise RecipeError(
                f"{self.task.name}: the loss is no longer a finite number. Lower "
                "optimiser.learning_rate_at_512 in this stage's section of the recipe"
                + (", or set optimiser.precision=bf16" if self.section.precision == "fp16" else "")
                + ", and run again."
            )
        return sums

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, but for the sums."""
        return {
            "module": self.task.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any], sums: Mapping[str, float]) -> None:
        """Go back to a state; the first process takes over the sums of all."""
        self.task.module.load_state_dict(state["module"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        share = 1.0 if self.processes.first else 0.0
        self.sums = {
            key: torch.tensor(value * share, dtype=torch.float64, device=self.processes.device)
            for key, value in sums.items()
        }
