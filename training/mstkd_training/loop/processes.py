"""The processes of a run: one, or as many as `torchrun` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import torch
from torch import Tensor, distributed

from mstkd_serve.errors import RecipeError

_T = TypeVar("_T")

_CPU = torch.device("cpu")
_PATIENCE = timedelta(days=2)
"""How long a process waits for the others: one of them may be embedding a million faces."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: Its number, from 0; the first one writes and speaks for all.
        world: How many there are.
        device: Where it computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        self.sums(torch.zeros(1))

    def sums(self, values: Tensor) -> Tensor:
        """Return the sums over processes of a vector on the CPU, `(N,)`."""
        if self.world > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def told(self, value: _T) -> _T:
        """Return what the first process has as `value`."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


ALONE: Final = Processes()
"""One process, on the CPU."""


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that `torchrun` started; without it, be the only one.

    They talk over gloo on CPUs and nccl on GPUs.

    Args:
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.

    Raises:
        RecipeError: The device is unknown or absent.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    place = _device(device, local)
    if world == 1:
        yield Processes(0, 1, place)
        return
    backend = "gloo" if place.type == "cpu" else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(rank, world, place)
    finally:
        distributed.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise RecipeError(f"--device {name}: give auto, cpu or cuda.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise RecipeError(
            f"--device {name}: process {local_rank} of this machine finds only "
            f"{torch.cuda.device_count()} GPUs. Start one process a GPU, or give --device cpu."
        )
    torch.cuda.set_device(local_rank)
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", local_rank)
