"""CurricularFace: hard classes weigh little early in training and more later."""

import torch
from torch import Tensor

from mstkd_training.heads.cosine import CosineHead, add_margin
from mstkd_training.heads.statistic import MOMENTUM, batch_moments


class CurricularFace(CosineHead):
    """An angular margin, and other classes weighted by how far training has come.

    Huang et al., "CurricularFace" (CVPR 2020): the true class's cosine becomes `cos(theta + m)`.
    Where another class's cosine c is above that (a hard class), it becomes `c (t + c)`. `t` is
    the running mean of the true classes' cosines, `t <- momentum * mean + (1 - momentum) * t`,
    from 0; it is updated in training only, before it is used, as in the authors' code.

    Attributes:
        t: The running mean, a buffer of shape `()`, so that checkpoints carry it. In a
            distributed run it follows the batches of all processes together.

    Args:
        embedding_dim: Length of an embedding.
        classes: Number of identities.
        scale: Factor on all logits, above 0.
        margin: Angular margin, radians.
        momentum: Weight of a new batch in `t`.
    """

    def __init__(
        self,
        embedding_dim: int,
        classes: int,
        *,
        scale: float = 64.0,
        margin: float,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__(embedding_dim, classes, scale=scale)
        self.margin = margin
        self.momentum = momentum
        self.t: Tensor
        self.register_buffer("t", torch.zeros(()))

    def margined(self, cosines: Tensor, rows: Tensor, embeddings: Tensor) -> Tensor:
        """See `CosineHead.margined`."""
        true = cosines.gather(1, rows)
        if self.training:
            mean, _, _ = batch_moments(true.flatten())
            self.t.lerp_(mean.to(self.t), self.momentum)
        with_margin = add_margin(true, torch.full_like(true, self.margin))
        hard = cosines * (self.t + cosines)
        return torch.where(cosines > with_margin, hard, cosines).scatter(1, rows, with_margin)
