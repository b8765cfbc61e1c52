"""From uint8 faces to unit embeddings: the one definition that every stage and export uses."""

import copy
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mstkd_serve.contract import Preprocessing
from mstkd_training.data.images import Images

VIEWS = 2
"""Views of a face: 0 as it is, 1 flipped left to right."""

PRECISIONS: Final[Mapping[str, torch.dtype | None]] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""What is computed in beside float32, by the name that recipes use."""


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


def inference_copy(backbone: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """Return a copy of a backbone that embeds fast and cannot be trained.

    Each batch norm behind a convolution is folded into it, weights are stored in the arithmetic's
    dtype, and memory is channels-last.

    Args:
        backbone: In evaluation mode.
        device: Where the copy shall run.
        precision: A key of `PRECISIONS`.
    """
    traced = fx.symbolic_trace(copy.deepcopy(backbone))
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        norm, convolution = _module(node, modules), _module(before, modules)
        if isinstance(norm, nn.BatchNorm2d) and type(convolution) is nn.Conv2d:
            assert isinstance(before, fx.Node), "it calls the convolution"
            if len(before.users) == 1:
                traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
                node.replace_all_uses_with(before)
                traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    dtype = PRECISIONS[precision] or torch.float32
    return traced.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _module(node: object, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """Return the module that a node of a traced network calls, if it calls one."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return modules[str(node.target)]
    return None


@torch.inference_mode()
def embed(backbone: nn.Module, pixels_nhwc: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return unit embeddings of a backbone in evaluation mode, float32 `(N, dim)`.

    Args:
        backbone: From float `(N, 3, 112, 112)` to `(N, dim)`, in the dtype of its weights.
        pixels_nhwc: uint8 RGB `(N, 112, 112, 3)`, on the backbone's device.
        preprocessing: How the backbone was trained to see faces.
    """
    if backbone.training:
        raise ValueError("embed() needs a backbone in evaluation mode; call eval() first")
    weights = next(backbone.parameters())
    embeddings = backbone(network_input(pixels_nhwc, preprocessing).to(weights.dtype))
    return unit(embeddings.float())
