"""In which order samples are seen: a function of seed and epoch, so that it needs no state."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from mstkd_serve.errors import RecipeError
from mstkd_training.heads.noise import key_to_seed
from mstkd_training.loop.task import Task

_ORDER = 1


@dataclass(frozen=True)
class Part:
    """What one process does of a batch at a time.

    Attributes:
        indices: int64 `(B,)`.
        flipped: bool `(B,)`, which of them to mirror.
        first: Place of the first of them in the batch.
        total: Number of samples in the batch, of all processes and parts.
        last: Whether the optimiser steps after this part.
    """

    indices: Tensor
    flipped: Tensor
    first: int
    total: int
    last: bool


def batches(samples: int, batch_size: int, seed: int, epoch: int) -> list[tuple[Tensor, Tensor]]:
    """Return an epoch: every sample once, in random order, mirrored with probability 1/2.

    The samples are dealt into batches of nearly equal size, so that none is dropped and no
    last batch is too small for batch normalisation.

    Args:
        samples: Number of samples.
        batch_size: The largest batch.
        seed: The stage's seed.
        epoch: Counted from 0; each has its own order.

    Returns:
        Indices int64 `(B,)`, and which of them to flip, bool `(B,)`, of every batch.
    """
    generator = torch.Generator().manual_seed(key_to_seed(seed, _ORDER, epoch))
    order = torch.randperm(samples, generator=generator)
    flips = torch.rand(samples, generator=generator) < 0.5
    count = math.ceil(samples / batch_size)
    return list(zip(order.tensor_split(count), flips.tensor_split(count), strict=True))


def parts_of(
    batch: tuple[Tensor, Tensor], accumulate: int, rank: int, world: int
) -> Iterator[Part]:
    """Yield what process `rank` does of a batch: one part for each accumulation.

    The batch is cut into `accumulate` x `world` neighbouring pieces of nearly equal size.
    """
    indices, flipped = batch
    pieces = accumulate * world
    starts = [0]
    for piece in indices.tensor_split(pieces):
        starts.append(starts[-1] + len(piece))
    for number in range(accumulate):
        place = number * world + rank
        chosen = slice(starts[place], starts[place + 1])
        yield Part(
            indices[chosen],
            flipped[chosen],
            first=starts[place],
            total=len(indices),
            last=number == accumulate - 1,
        )


def require_large_enough(name: str, samples: int, batch_size: int, pieces: int) -> None:
    """Refuse batches that leave a process without two samples.

    Raises:
        RecipeError: Batch normalisation would have a single sample to go by, or none.
    """
    smallest = samples // math.ceil(samples / batch_size)
    if smallest < 2 * pieces:
        raise RecipeError(
            f"{name}: batches of {smallest} (of {samples} samples) are too small for {pieces} "
            "parts (processes times optimiser.accumulate): two samples a part are needed. Raise "
            "optimiser.batch_size, lower optimiser.accumulate, or use fewer processes."
        )


def loaded(parts: Iterator[Part], task: Task) -> Iterator[tuple[Part, tuple[Tensor, ...]]]:
    """Yield each part with its tensors; the next one is read while this one is computed."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-faces") as pool:
        ahead = None
        for part in parts:
            reading = (part, pool.submit(task.load, part.indices, part.flipped))
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = reading
        if ahead is not None:
            yield ahead[0], ahead[1].result()
