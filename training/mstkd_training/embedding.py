"""From uint8 faces to unit embeddings: the one definition that every stage and export uses."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mstkd_serve.contract import Preprocessing
from mstkd_training.data.images import Images

VIEWS = 2
"""Views of a face: 0 as it is, 1 flipped left to right."""

PRECISIONS: Final[Mapping[str, torch.dtype | None]] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""What autocast computes in, by the name that recipes use."""


def network_input(pixels_nhwc: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalise faces by the contract's values.

    Args:
        pixels_nhwc: uint8 RGB `(N, 112, 112, 3)`.
        preprocessing: Where mean and standard deviation come from.

    Returns:
        float32 `(N, 3, 112, 112)` in channels-last memory order.
    """
    mean = torch.tensor(preprocessing.mean, device=pixels_nhwc.device)
    std = torch.tensor(preprocessing.std, device=pixels_nhwc.device)
    return ((pixels_nhwc.float() - mean) / std).permute(0, 3, 1, 2)


def face_batch(images: Images, indices: Tensor, flipped: Tensor) -> Tensor:
    """Read faces and mirror some of them.

    Args:
        images: uint8 `(N, 112, 112, 3)`, usually memory-mapped or encoded.
        indices: int64 `(B,)`.
        flipped: bool `(B,)`, which faces to mirror left to right.

    Returns:
        uint8 `(B, 112, 112, 3)`.
    """
    faces = torch.from_numpy(np.ascontiguousarray(images[indices.numpy()]))
    return torch.where(flipped[:, None, None, None], faces.flip(2), faces)


def unit(embeddings: Tensor) -> Tensor:
    """Scale rows of `(N, dim)` to unit L2 norm; norms below 1e-12 count as 1e-12."""
    return functional.normalize(embeddings, dim=1, eps=1e-12)


@torch.inference_mode()
def embed(
    backbone: nn.Module,
    pixels_nhwc: Tensor,
    preprocessing: Preprocessing,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return unit embeddings of a backbone in evaluation mode, float32 `(N, dim)`.

    Args:
        backbone: From float `(N, 3, 112, 112)` to `(N, dim)`.
        pixels_nhwc: uint8 RGB `(N, 112, 112, 3)`, on the backbone's device.
        preprocessing: How the backbone was trained to see faces.
        dtype: Arithmetic of the network by autocast; None for float32.
    """
    if backbone.training:
        raise ValueError("embed() needs a backbone in evaluation mode; call eval() first")
    with torch.autocast(pixels_nhwc.device.type, dtype, enabled=dtype is not None):
        embeddings = backbone(network_input(pixels_nhwc, preprocessing))
    return unit(embeddings.float())
