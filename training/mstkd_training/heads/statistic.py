"""Batches that are spread over the processes of one training run, seen as a whole."""

from typing import Final

import torch
import torch.distributed
from torch import Tensor

MOMENTUM: Final = 0.01
"""Weight of a new batch in running statistics, in the papers' code."""


def batch_moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance over the batches of all processes.

    Every process of a distributed run must call it in the same step; each gets the same answer,
    so that running statistics stay equal.

    Args:
        values: One number a sample, `(N,)`; N may differ between processes.

    Returns:
        Mean, variance (ddof 1; 0 for a single sample) and number of samples, scalars.
    """
    values = values.detach().double()
    sums = torch.stack([values.new_tensor(len(values)), values.sum(), values.square().sum()])
    if _spread():
        torch.distributed.all_reduce(sums)
    count, total, squares = sums
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0) * count / (count - 1).clamp(min=1)
    return mean, variance, count


def whole_batch(values: Tensor) -> tuple[Tensor, slice]:
    """Return the values of all processes one after the other, and where this process's are.

    Every process of a distributed run must call it in the same step.

    Args:
        values: One row a sample, `(N, ...)`; N may differ between processes.
    """
    values = values.detach()
    if not _spread():
        return values, slice(0, len(values))
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    counts = torch.zeros(processes, dtype=torch.int64, device=values.device)
    counts[rank] = len(values)
    torch.distributed.all_reduce(counts)
    ends = counts.cumsum(0).tolist()
    mine = slice(ends[rank] - len(values), ends[rank])
    whole = values.new_zeros((ends[-1], *values.shape[1:]))
    whole[mine] = values
    torch.distributed.all_reduce(whole)
    return whole, mine


def _spread() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
