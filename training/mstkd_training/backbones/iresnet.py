"""IResNet, the improved residual network of ArcFace, for aligned faces of 112x112.

Architecture: Duta et al., "Improved Residual Networks for Image and Video Recognition" (ICPR
2020), in the form that ArcFace (Deng et al., CVPR 2019) and MST-KD train. The names in the state
dictionary are those of the public MST-KD, ElasticFace and arcface_torch checkpoints.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import Tensor, nn

BLOCKS: Final[Mapping[str, tuple[int, int, int, int]]] = MappingProxyType(
    {
        "iresnet18": (2, 2, 2, 2),
        "iresnet34": (3, 4, 6, 3),
        "iresnet50": (3, 4, 14, 3),
        "iresnet100": (3, 13, 30, 3),
    }
)
"""Residual blocks in each of the four stages."""

_SE_SUFFIX = "-se"
_SE_REDUCTION = 16
_DROPOUT: Final[Mapping[str, float]] = MappingProxyType({"iresnet50": 0.4})
_CHANNELS = (64, 128, 256, 512)
_FINAL_SIDE = 7
_EPSILON = 1e-5
_CONV_STD = 0.1


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _SE_REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _SE_REDUCTION, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, channels, H, W)` to the same shape."""
        squeezed = features.mean(dim=(2, 3), keepdim=True)
        return features * self.fc2(self.fc1(squeezed).relu()).sigmoid()  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """BN, conv3x3, BN, PReLU, conv3x3 (strided), BN, optionally SE, plus a shortcut.

    The shortcut is the identity, or a strided conv1x1 and BN where the shape changes.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, use_se: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, eps=_EPSILON)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=_EPSILON)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels, eps=_EPSILON)
        self.se_block: SqueezeExcitation | None = (
            SqueezeExcitation(out_channels) if use_se else None
        )
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels, eps=_EPSILON),
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, in, H, W)` to `(N, out, H / stride, W / stride)`."""
        shortcut = features if self.downsample is None else self.downsample(features)
        residual = self.prelu(self.bn2(self.conv1(self.bn1(features))))
        residual = self.bn3(self.conv2(residual))
        if self.se_block is not None:
            residual = self.se_block(residual)
        return residual + shortcut  # type: ignore[no-any-return]


class IResNet(nn.Module):
    """An IResNet with a linear embedding layer.

    Args:
        blocks: Residual blocks in each of the four stages.
        embedding_dim: Length of an embedding.
        dropout: Share of the final feature map that is dropped in training, 0 to 1.
        use_se: Whether every block ends with a squeeze-and-excitation block.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        embedding_dim: int,
        dropout: float = 0.0,
        *,
        use_se: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0], eps=_EPSILON)
        self.prelu = nn.PReLU(_CHANNELS[0])
        self.layer1 = _stage(_CHANNELS[0], _CHANNELS[0], blocks[0], use_se)
        self.layer2 = _stage(_CHANNELS[0], _CHANNELS[1], blocks[1], use_se)
        self.layer3 = _stage(_CHANNELS[1], _CHANNELS[2], blocks[2], use_se)
        self.layer4 = _stage(_CHANNELS[2], _CHANNELS[3], blocks[3], use_se)
        self.bn2 = nn.BatchNorm2d(_CHANNELS[3], eps=_EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(_CHANNELS[3] * _FINAL_SIDE**2, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim, eps=_EPSILON)
        self.features.weight.requires_grad_(False)  # stays 1: the head works on directions
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, _CONV_STD)

    def forward(self, pixels_nchw: Tensor) -> Tensor:
        """Embed normalised faces.

        Args:
            pixels_nchw: float `(N, 3, 112, 112)`, normalised as the face contract says.

        Returns:
            `(N, embedding_dim)`, not normalised.
        """
        maps = self.prelu(self.bn1(self.conv1(pixels_nchw)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        flat = self.dropout(self.bn2(maps).flatten(1))
        return self.features(self.fc(flat))  # type: ignore[no-any-return]


IRESNETS: Final = (*BLOCKS, *(f"{name}{_SE_SUFFIX}" for name in BLOCKS))
"""Names that `build_iresnet` knows."""


def build_iresnet(name: str, embedding_dim: int) -> IResNet:
    """Build one of `IRESNETS`; IResNet-50 has dropout 0.4, the others have none."""
    plain = name.removesuffix(_SE_SUFFIX)
    return IResNet(
        BLOCKS[plain], embedding_dim, _DROPOUT.get(plain, 0.0), use_se=name.endswith(_SE_SUFFIX)
    )


def _stage(in_channels: int, out_channels: int, blocks: int, use_se: bool) -> nn.Sequential:
    """Return `blocks` residual blocks, the first of which halves height and width."""
    first = BasicBlock(in_channels, out_channels, 2, use_se)
    rest = (BasicBlock(out_channels, out_channels, 1, use_se) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
