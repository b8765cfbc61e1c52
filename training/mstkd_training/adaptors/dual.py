"""DuL and DLDPO, the dual-layer adaptors of MST-KD."""

from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.01
DROPOUT = 0.2
"""Share that DLDPO drops."""


class DualLayer(nn.Module):
    """Linear, dropout, LeakyReLU(0.01), linear; the hidden layer is as long as the embedding.

    Its keys in the state dictionary are `fc1.weight`, `fc1.bias`, `fc2.weight` and `fc2.bias`.
    The order of the teachers is part of the weights' meaning; see `adaptors.sl`.

    Args:
        in_dim: Sum of the teachers' embedding lengths.
        embedding_dim: Length of the common embedding.
        dropout: Share of the first layer's output that is dropped in training: 0 gives DuL,
            `DROPOUT` DLDPO. In evaluation the two are the same.
    """

    def __init__(self, in_dim: int, embedding_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(embedding_dim, embedding_dim)

    def forward(self, concatenated: Tensor) -> Tensor:
        """Map unit teacher embeddings side by side, `(N, in_dim)`, to `(N, embedding_dim)`."""
        hidden = functional.leaky_relu(self.dropout(self.fc1(concatenated)), _SLOPE)
        return self.fc2(hidden)  # type: ignore[no-any-return]
