"""AdaFace: the margin follows an embedding's length, which tells a good image from a bad one."""

from typing import Final

import torch
from torch import Tensor

from mstkd_training.heads.cosine import CosineHead, add_margin, safe_sine, single_or_double
from mstkd_training.heads.statistic import MOMENTUM, batch_moments

CONCENTRATION: Final = 0.333
"""The paper's factor on the standardised length."""

_NORM_RANGE = (0.001, 100.0)
_EPSILON = 1e-3
_FIRST_MEAN, _FIRST_STD = 20.0, 100.0


class AdaFace(CosineHead):
    """Angular and additive margins from the length of the embedding.

    Kim et al., "AdaFace" (CVPR 2022): the length, standardised by running mean and deviation,
    times `concentration` and clipped to -1..1, is the quality q. The true class's cosine becomes
    `cos(theta - m q) - (m + m q)`: angles of good images are pulled down, those of bad ones pushed
    up, and good ones get the larger additive margin. Angles below 0 count as 0.

    The head needs embeddings before normalisation. Gradients do not pass through the length.

    Attributes:
        norm_mean: Running mean of the lengths, a buffer of shape `()`; it starts at 20.
        norm_std: Running standard deviation (ddof 1), a buffer of shape `()`; it starts at 100.
            Both follow the batches of all processes in training, and travel in checkpoints.

    Args:
        embedding_dim: Length of an embedding.
        classes: Number of identities.
        scale: Factor on all logits, above 0.
        margin: m, 0.4 in the paper.
        concentration: Factor on the standardised length, 0.333 in the paper.
        momentum: Weight of a new batch in the running statistics.
    """

    def __init__(
        self,
        embedding_dim: int,
        classes: int,
        *,
        scale: float = 64.0,
        margin: float,
        concentration: float = CONCENTRATION,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__(embedding_dim, classes, scale=scale)
        self.margin = margin
        self.concentration = concentration
        self.momentum = momentum
        self.norm_mean: Tensor
        self.norm_std: Tensor
        self.register_buffer("norm_mean", torch.tensor(_FIRST_MEAN))
        self.register_buffer("norm_std", torch.tensor(_FIRST_STD))

    def margined(self, cosines: Tensor, rows: Tensor, embeddings: Tensor) -> Tensor:
        """See `CosineHead.margined`."""
        quality = self.quality(embeddings).to(cosines.dtype)
        true = cosines.gather(1, rows)
        angular = _turn(true, -self.margin * quality)
        return cosines.scatter(1, rows, angular - (self.margin + self.margin * quality))

    @torch.no_grad()
    def quality(self, embeddings: Tensor) -> Tensor:
        """Return the quality of each sample, `(N, 1)`, -1 to 1; updates the running statistics."""
        norms = single_or_double(embeddings).norm(dim=1, keepdim=True).clamp(*_NORM_RANGE)
        if self.training:
            mean, variance, count = batch_moments(norms.flatten())
            self.norm_mean.lerp_(mean.to(self.norm_mean), self.momentum)
            # One sample alone has no deviation.
            weight = (self.momentum * (count > 1)).to(self.norm_std)
            self.norm_std.lerp_(variance.sqrt().to(self.norm_std), weight)
        standardised: Tensor = (norms - self.norm_mean) / (self.norm_std + _EPSILON)
        return (standardised * self.concentration).clamp(-1.0, 1.0)


def _turn(cosines: Tensor, angles: Tensor) -> Tensor:
    """Return `cos(max(theta + angle, 0))`; angles `(N, 1)` may be below 0."""
    turned = add_margin(cosines, angles.clamp(min=0.0))
    back = angles.clamp(max=0.0).neg()
    pulled = cosines * back.cos() + safe_sine(cosines) * back.sin()  # cos(theta - back)
    pulled = torch.where(cosines < back.cos(), pulled, torch.ones_like(pulled))
    return torch.where(angles < 0, pulled, turned)
