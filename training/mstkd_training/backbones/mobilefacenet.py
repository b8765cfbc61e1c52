"""MobileFaceNet: about a million parameters, for phones and small machines.

Chen et al., "MobileFaceNets" (CCBR 2018), table 1: inverted residual blocks with PReLU, and a
learned weight for each place of the last map (a depthwise 7x7 convolution) instead of an average,
because the centre of a face tells more than its rim.
"""

from torch import Tensor, nn

_STEM = 64
_STAGES = ((64, 5, 2, 2), (128, 1, 4, 2), (128, 6, 2, 1), (128, 1, 4, 2), (128, 2, 2, 1))
"""Channels, blocks, expansion and first stride of each stage."""
_LAST = 512
_FINAL_SIDE = 7


def _conv(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, depthwise: bool = False
) -> list[nn.Module]:
    """Return convolution and BN; `same` padding."""
    groups = in_channels if depthwise else 1
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(out_channels)]


class Bottleneck(nn.Module):
    """conv1x1 that widens, depthwise conv3x3, conv1x1 that narrows; plus the input if it fits."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            *_conv(in_channels, wide),
            nn.PReLU(wide),
            *_conv(wide, wide, 3, stride, depthwise=True),
            nn.PReLU(wide),
            *_conv(wide, out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, in, H, W)` to `(N, out, H / stride, W / stride)`."""
        answer: Tensor = self.layers(features)
        return features + answer if self.residual else answer


class MobileFaceNet(nn.Module):
    """The mobile backbone: 1.00 M parameters at 128-d, 1.20 M at 512-d.

    Args:
        embedding_dim: Length of an embedding.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            *_conv(3, _STEM, 3, 2),
            nn.PReLU(_STEM),
            *_conv(_STEM, _STEM, 3, depthwise=True),
            nn.PReLU(_STEM),
        ]
        channels = _STEM
        for width, blocks, expansion, stride in _STAGES:
            for block in range(blocks):
                first = block == 0
                layers.append(Bottleneck(channels, width, expansion, stride if first else 1))
                channels = width
        self.trunk = nn.Sequential(*layers, *_conv(channels, _LAST), nn.PReLU(_LAST))
        self.pool = nn.Sequential(
            nn.Conv2d(_LAST, _LAST, _FINAL_SIDE, groups=_LAST, bias=False), nn.BatchNorm2d(_LAST)
        )
        self.fc = nn.Linear(_LAST, embedding_dim, bias=False)
        self.features = nn.BatchNorm1d(embedding_dim)
        self.features.weight.requires_grad_(False)  # stays 1: the head works on directions

    def forward(self, pixels_nchw: Tensor) -> Tensor:
        """Embed normalised faces.

        Args:
            pixels_nchw: float `(N, 3, 112, 112)`, normalised as the face contract says.

        Returns:
            `(N, embedding_dim)`, not normalised.
        """
        return self.features(self.fc(self.pool(self.trunk(pixels_nchw)).flatten(1)))  # type: ignore[no-any-return]
