"""Elastic margins, drawn anew for every sample; without their spread, ArcFace and CosFace."""

import torch
from torch import Tensor

from mstkd_training.heads.cosine import CosineHead, add_margin
from mstkd_training.heads.noise import normal
from mstkd_training.heads.statistic import whole_batch


class ElasticHead(CosineHead):
    """A random margin `m ~ N(margin_mean, margin_std)` on the true class of every sample.

    Boutros et al., "ElasticFace" (CVPR Workshops 2022). Draws are made in training only;
    evaluation uses the mean. Draws below 0 count as 0.

    ElasticFace+ (`ordered`) hands the drawn margins out by the angle between a sample and its
    class: the largest margin to the largest angle, and so on down, over the batches of all
    processes together. The parts of an accumulated batch are ordered each by itself. (The
    authors' code indexes the sorted margins by the order instead of the rank, which is not what
    their paper says.)

    Args:
        embedding_dim: Length of an embedding.
        classes: Number of identities.
        scale: Factor on all logits, above 0.
        margin_mean: Mean of the margin.
        margin_std: Standard deviation of the margin; 0 draws nothing.
        ordered: Whether margins are handed out by angle.
    """

    def __init__(
        self,
        embedding_dim: int,
        classes: int,
        *,
        scale: float = 64.0,
        margin_mean: float,
        margin_std: float = 0.0,
        ordered: bool = False,
    ) -> None:
        super().__init__(embedding_dim, classes, scale=scale)
        self.margin_mean = margin_mean
        self.margin_std = margin_std
        self.ordered = ordered

    def margined(self, cosines: Tensor, rows: Tensor, embeddings: Tensor) -> Tensor:
        """See `CosineHead.margined`."""
        true = cosines.gather(1, rows)
        return cosines.scatter(1, rows, self.apply_margins(true, self.draw(true.detach())))

    def draw(self, true: Tensor) -> Tensor:
        """Return a margin for each sample.

        Args:
            true: Cosine of each sample to its own class, `(N, 1)`.

        Returns:
            `(N, 1)`, 0 or more.
        """
        margins = torch.full_like(true, self.margin_mean)
        if not self.training or self.margin_std == 0:
            return margins
        drawn = normal(true.shape, true.device).to(true.dtype)
        margins = (margins + self.margin_std * drawn).clamp(min=0.0)
        if not self.ordered:
            return margins
        (all_true, mine), (all_margins, _) = whole_batch(true), whole_batch(margins)
        by_falling_angle = all_true.argsort(dim=0, stable=True)
        falling = all_margins.sort(dim=0, descending=True).values
        return torch.empty_like(falling).scatter(0, by_falling_angle, falling)[mine]

    def apply_margins(self, true: Tensor, margins: Tensor) -> Tensor:
        """Return the true class's cosines with their margins, both `(N, 1)`."""
        raise NotImplementedError


class ElasticArcFace(ElasticHead):
    """`cos(theta + m)` on the true class: an angular margin in radians, see `add_margin`.

    With no spread it is ArcFace (Deng et al., CVPR 2019).
    """

    def apply_margins(self, true: Tensor, margins: Tensor) -> Tensor:
        """See `ElasticHead.apply_margins`."""
        return add_margin(true, margins)


class ElasticCosFace(ElasticHead):
    """`cos(theta) - m` on the true class: a margin in cosine.

    With no spread it is CosFace (Wang et al., CVPR 2018).
    """

    def apply_margins(self, true: Tensor, margins: Tensor) -> Tensor:
        """See `ElasticHead.apply_margins`."""
        return true - margins
