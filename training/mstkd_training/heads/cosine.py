"""What all margin heads share: cosines to one direction a class, and margins on the true one."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST_SIN_SQUARED = 1e-6


class CosineHead(nn.Module):
    """A classifier by cosine; subclasses add their margin in `logits`.

    Cosines and logits are float32 whatever the embeddings are, also under autocast: at a scale
    of 64, bfloat16 would round a logit by up to 0.25. float64 stays float64.

    Attributes:
        weight: One direction a class, `(classes, embedding_dim)`; its length has no effect.

    Args:
        embedding_dim: Length of an embedding.
        classes: Number of identities.
        scale: Factor on all logits, above 0.
    """

    def __init__(self, embedding_dim: int, classes: int, *, scale: float = 64.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(classes, embedding_dim))
        nn.init.normal_(self.weight, 0.0, 0.01)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Return cosines to every class.

        Args:
            embeddings: `(N, embedding_dim)`, of any length.

        Returns:
            `(N, classes)`, -1 to 1 up to rounding.
        """
        return functional.linear(
            functional.normalize(single_or_double(embeddings), eps=1e-12),
            functional.normalize(single_or_double(self.weight), eps=1e-12),
        )

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return logits for the cross-entropy.

        Args:
            embeddings: `(N, embedding_dim)`, of any length; they are normalised here.
            labels: int64 `(N,)`, 0 to classes - 1.

        Returns:
            float32 `(N, classes)`.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.scale * self.margined(self.cosines(embeddings), labels[:, None], embeddings)

    def margined(self, cosines: Tensor, rows: Tensor, embeddings: Tensor) -> Tensor:
        """Return the cosines with this head's margin.

        Args:
            cosines: `(N, classes)`.
            rows: The labels, int64 `(N, 1)`.
            embeddings: As they were given, for heads that look at their length.

        Returns:
            `(N, classes)`.
        """
        raise NotImplementedError


def single_or_double(values: Tensor) -> Tensor:
    """Return `values` in float32, or in float64 if that is what they are."""
    return values if values.dtype == torch.float64 else values.float()


def safe_sine(cosines: Tensor) -> Tensor:
    """Return `sin(theta)` of `cos(theta)`, 0.001 or more, with a gradient of at most 1000."""
    return ((1.0 - cosines) * (1.0 + cosines)).clamp(min=_SMALLEST_SIN_SQUARED).sqrt()


def add_margin(cosines: Tensor, margins: Tensor) -> Tensor:
    """Return `cos(theta + m)`, with a finite gradient for every cosine.

    The margin never passes through an arc cosine, whose gradient is infinite at +-1. It is
    `cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m)` with the sine of `safe_sine`, so the
    gradient with respect to the cosine is at most 1 + 1000 sin(m), and the one with respect to
    the embedding, which carries another factor sin(theta), at most about 1.

    Where `theta + m` passes pi, `cos(theta + m)` would rise again and reward a worse embedding.
    There the value is `cos(theta) - m sin(m)`, the customary falling continuation of ArcFace
    (Deng et al., CVPR 2019).

    Args:
        cosines: `cos(theta)`, any shape.
        margins: m in radians, 0 to pi, of the same shape.

    Returns:
        `cos(theta + m)` up to `theta + m = pi`, `cos(theta) - m sin(m)` beyond.
    """
    within = cosines * margins.cos() - safe_sine(cosines) * margins.sin()
    beyond = cosines - margins * margins.sin()
    return torch.where(cosines > (math.pi - margins).cos(), within, beyond)
