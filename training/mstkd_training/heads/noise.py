"""Random numbers for each sample of a step, the same however the step's batch is divided.

A batch may be spread over processes and over accumulated parts. Every process then draws for the
whole batch, from a generator that depends on the step alone, and keeps the rows of its own
samples: margins and dropout do not depend on the number of processes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class _Place:
    """Where in a step's batch the samples at hand are."""

    key: tuple[int, ...]
    total: int
    first: int
    draws: int = 0


_PLACE: ContextVar[_Place | None] = ContextVar("place_in_batch", default=None)


@contextmanager
def samples_of_a_batch(key: Sequence[int], total: int, first: int) -> Iterator[None]:
    """Draw for some samples of a batch as if for all of it.

    Args:
        key: What identifies the step, such as the seed, the epoch and the step's number.
        total: Number of samples in the batch of all processes.
        first: Place of the first sample at hand; those that follow it are at hand too.
    """
    token = _PLACE.set(_Place(tuple(key), total, first))
    try:
        yield
    finally:
        _PLACE.reset(token)


def normal(shape: Sequence[int], device: torch.device) -> Tensor:
    """Draw standard normal numbers, float32; the first axis is that of the samples.

    Outside `samples_of_a_batch` they come from torch's global random state.
    """
    place = _PLACE.get()
    if place is None:
        return torch.randn(tuple(shape), device=device)
    generator, rows = _generator(place, shape, device)
    return _mine(torch.randn(rows, generator=generator, device=device), place, shape)


def uniform(shape: Sequence[int], device: torch.device) -> Tensor:
    """Draw numbers from 0 to 1, float32; otherwise as `normal`."""
    place = _PLACE.get()
    if place is None:
        return torch.rand(tuple(shape), device=device)
    generator, rows = _generator(place, shape, device)
    return _mine(torch.rand(rows, generator=generator, device=device), place, shape)


def key_to_seed(*key: int) -> int:
    """Return a seed, 0 to 2**63 - 1, that belongs to these numbers alone."""
    digest = hashlib.sha256(":".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _generator(
    place: _Place, shape: Sequence[int], device: torch.device
) -> tuple[torch.Generator, tuple[int, ...]]:
    place.draws += 1
    generator = torch.Generator(device).manual_seed(key_to_seed(*place.key, place.draws))
    return generator, (place.total, *shape[1:])


def _mine(drawn: Tensor, place: _Place, shape: Sequence[int]) -> Tensor:
    if place.first + shape[0] > place.total:
        raise ValueError(f"{shape[0]} samples from {place.first} on are not in {place.total}")
    return drawn[place.first : place.first + shape[0]]
