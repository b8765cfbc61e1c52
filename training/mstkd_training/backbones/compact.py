"""A small backbone that trains in minutes on a CPU: for the demo, tests and first experiments.

Its resolution falls early (112 to 28 in the stem), because most of a CPU's time goes into the
first, large feature maps; inverted residual blocks (Sandler et al., "MobileNetV2", CVPR 2018)
then work on 14x14 and 7x7 maps. ReLU instead of PReLU, whose gradient alone took 40 % of a CPU's
time.
"""

from torch import Tensor, nn

_STEM = 32
_WIDTHS = ((64, 1), (96, 2))
_EXPANSION = 2
_FINAL_SIDE = 7


def _conv(
    in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1
) -> nn.Sequential:
    """Return convolution, BN, ReLU; `same` padding."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class InvertedResidual(nn.Module):
    """conv1x1 that widens, depthwise conv3x3, conv1x1 that narrows again, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * _EXPANSION
        self.expand = _conv(channels, wide, 1, 1)
        self.depthwise = _conv(wide, wide, 3, 1, groups=wide)
        self.project = nn.Sequential(
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, channels, H, W)` to the same shape."""
        return features + self.project(self.depthwise(self.expand(features)))  # type: ignore[no-any-return]


class Compact(nn.Module):
    """The small backbone: 0.78 M parameters at 128-d.

    Args:
        embedding_dim: Length of an embedding.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, _STEM, 5, 4)]
        channels = _STEM
        for width, blocks in _WIDTHS:
            layers.append(_conv(channels, width, 3, 2))
            layers.extend(InvertedResidual(width) for _ in range(blocks))
            channels = width
        self.trunk = nn.Sequential(*layers)
        self.fc = nn.Linear(channels * _FINAL_SIDE**2, embedding_dim, bias=False)
        self.features = nn.BatchNorm1d(embedding_dim)
        self.features.weight.requires_grad_(False)  # stays 1: the head works on directions

    def forward(self, pixels_nchw: Tensor) -> Tensor:
        """Embed normalised faces.

        Args:
            pixels_nchw: float `(N, 3, 112, 112)`, normalised as the face contract says.

        Returns:
            `(N, embedding_dim)`, not normalised.
        """
        return self.features(self.fc(self.trunk(pixels_nchw).flatten(1)))  # type: ignore[no-any-return]
