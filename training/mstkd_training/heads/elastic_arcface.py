"""ElasticArcFace: an additive angular margin that is drawn anew for every sample."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST_SIN_SQUARED = 1e-6


class ElasticArcFace(nn.Module):
    """Logits of a cosine classifier with a random angular margin on the true class.

    Boutros et al., "ElasticFace" (CVPR Workshops 2022), on ArcFace (Deng et al., CVPR 2019): the
    true class's logit is `scale * cos(theta + m)` with `m ~ N(margin_mean, margin_std)`, the
    others' are `scale * cos(theta)`.

    The margin never passes through an arc cosine, whose gradient is infinite at +-1. It is
    `cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m)` with
    `sin(theta) = sqrt(max((1 - cos)(1 + cos), 1e-6))`, so the gradient with respect to the cosine
    is at most 1 + 1000 sin(m), and the one with respect to the embedding, which carries another
    factor sin(theta), at most about 1.

    Where `theta + m` passes pi, `cos(theta + m)` would rise again and reward a worse embedding.
    There the logit is `cos(theta) - m sin(m)`, the customary falling continuation.

    Attributes:
        weight: One direction a class, `(classes, embedding_dim)`; its length has no effect.

    Args:
        embedding_dim: Length of an embedding.
        classes: Number of identities.
        scale: Factor on all logits, above 0.
        margin_mean: Mean of the margin, radians.
        margin_std: Standard deviation of the margin, radians; 0 gives ArcFace. Draws below 0
            count as 0. Draws are made in training only; evaluation uses the mean.
    """

    def __init__(
        self,
        embedding_dim: int,
        classes: int,
        *,
        scale: float = 64.0,
        margin_mean: float = 0.5,
        margin_std: float = 0.05,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.margin_mean = margin_mean
        self.margin_std = margin_std
        self.weight = nn.Parameter(torch.empty(classes, embedding_dim))
        nn.init.normal_(self.weight, 0.0, 0.01)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Return cosines to every class in float32.

        Args:
            embeddings: `(N, embedding_dim)`, of any length.

        Returns:
            `(N, classes)`, -1 to 1 up to rounding.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return functional.linear(
                functional.normalize(embeddings.float(), eps=1e-12),
                functional.normalize(self.weight.float(), eps=1e-12),
            )

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return logits for the cross-entropy.

        Args:
            embeddings: `(N, embedding_dim)`, of any length; they are normalised here.
            labels: int64 `(N,)`, 0 to classes - 1.

        Returns:
            float32 `(N, classes)`.
        """
        cosines = self.cosines(embeddings)
        rows = labels[:, None]
        true = cosines.gather(1, rows)
        margins = torch.full_like(true, self.margin_mean)
        if self.training and self.margin_std > 0:
            margins = torch.normal(margins, self.margin_std).clamp(min=0.0)
        return self.scale * cosines.scatter(1, rows, add_margin(true, margins))


def add_margin(cosines: Tensor, margins: Tensor) -> Tensor:
    """Return `cos(theta + m)`, with a finite gradient for every cosine.

    Args:
        cosines: `cos(theta)`, any shape.
        margins: m in radians, 0 to pi, of the same shape.

    Returns:
        `cos(theta + m)` up to `theta + m = pi`, `cos(theta) - m sin(m)` beyond.
    """
    sin_squared = (1.0 - cosines) * (1.0 + cosines)
    sines = sin_squared.clamp(min=_SMALLEST_SIN_SQUARED).sqrt()
    within = cosines * margins.cos() - sines * margins.sin()
    beyond = cosines - margins * margins.sin()
    return torch.where(cosines > (math.pi - margins).cos(), within, beyond)
