"""Layers of a batch that is spread over processes: statistics of all of it, dropout by sample."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mstkd_training.heads.cosine import single_or_double
from mstkd_training.heads.noise import uniform


def prepare_layers(module: nn.Module, *, synchronise: bool) -> None:
    """Replace layers of `module` in place so that the number of processes does not matter.

    Dropout draws by sample (`heads.noise`). Batch normalisation takes its statistics from the
    batches of all processes where `synchronise` says so. Names, parameters and buffers stay.

    Args:
        module: Its children are replaced, at any depth.
        synchronise: Whether there are several processes, whose statistics shall be common.
    """
    for name, child in list(module.named_children()):
        replacement: nn.Module | None = None
        if type(child) is nn.Dropout:
            replacement = SampleDropout(child.p)
        elif synchronise and isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            replacement = _common_statistics(child)
        if replacement is None:
            prepare_layers(child, synchronise=synchronise)
        else:
            setattr(module, name, replacement)


class SampleDropout(nn.Module):
    """Dropout whose mask belongs to the sample, not to the process that computes it.

    Args:
        share: Share of the values that become 0 in training, from 0 to less than 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` `(N, ...)`, some of them 0 and the others scaled up to make up for it."""
        if not self.training or self.share == 0:
            return values
        kept = uniform(values.shape, values.device) >= self.share
        return values * kept / (1.0 - self.share)


class CommonBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batches of all processes, where torch has none: on CPUs.

    torch's `SyncBatchNorm` needs a GPU. Mean and variance are reduced one after the other, so
    that the variance is not a difference of large numbers.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes from two on."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(N, C, ...)`; N may differ between processes."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        values = single_or_double(input)
        counted = values.new_tensor([values.numel() / values.shape[1]])
        distributed.all_reduce(counted)
        count = counted[0]
        mean = _sum(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            weight = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(variance * count / (count - 1), weight)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = (variance + self.eps).rsqrt().view(shape)
        normalised = centred * scale
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)


class _Summed(torch.autograd.Function):
    """The sum over processes; a gradient reaches the values of every process."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        distributed.all_reduce(summed)
        return summed


def _sum(values: Tensor) -> Tensor:
    summed: Tensor = _Summed.apply(values)  # type: ignore[no-untyped-call]
    return summed


def _common_statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """Return a layer with the same parameters and buffers."""
    if next(iter(norm.buffers())).is_cuda:
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(norm)
    common = CommonBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    common.weight, common.bias = norm.weight, norm.bias
    common.running_mean, common.running_var = norm.running_mean, norm.running_var
    common.num_batches_tracked = norm.num_batches_tracked
    common.train(norm.training)
    return common
