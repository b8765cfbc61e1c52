"""Statistics of a batch that is spread over the processes of one training run."""

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
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    count, total, squares = sums
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0) * count / (count - 1).clamp(min=1)
    return mean, variance, count
