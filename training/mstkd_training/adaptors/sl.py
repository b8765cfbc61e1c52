"""SL, the single-layer adaptor of MST-KD."""

from torch import Tensor, nn


class SingleLayer(nn.Module):
    """One linear layer; its keys in the state dictionary are `fc.weight` and `fc.bias`.

    Which columns belong to which teacher is part of the weights' meaning: the order of the
    teachers is stored in the adaptor's manifest, and whoever applies the adaptor must follow it.

    Args:
        in_dim: Sum of the teachers' embedding lengths.
        embedding_dim: Length of the common embedding.
    """

    def __init__(self, in_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_dim, embedding_dim)

    def forward(self, concatenated: Tensor) -> Tensor:
        """Map unit teacher embeddings side by side, `(N, in_dim)`, to `(N, embedding_dim)`."""
        return self.fc(concatenated)  # type: ignore[no-any-return]
