import time

import pytest
import torch

from mstkd_serve.errors import RecipeError
from mstkd_training.backbones import BACKBONES, build_backbone
from mstkd_training.backbones.iresnet import SqueezeExcitation


@pytest.mark.parametrize(
    ("name", "embedding_dim", "millions"),
    [
        ("iresnet18", 512, 24.03),
        ("iresnet34", 512, 34.14),
        ("iresnet50", 512, 43.59),
        ("iresnet100", 512, 65.16),
        ("iresnet18-se", 512, 24.11),
        ("iresnet34-se", 512, 34.30),
        ("iresnet50-se", 512, 43.81),
        ("iresnet100-se", 512, 65.53),
        ("mobilefacenet", 512, 1.20),
        ("mobilefacenet", 128, 1.00),
        ("compact", 128, 0.78),
    ],
)
def test_parameter_counts(name: str, embedding_dim: int, millions: float) -> None:
    """Those of the plain IResNets are the published ones."""
    with torch.device("meta"):
        backbone = build_backbone(name, embedding_dim)
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert round(count / 1e6, 2) == millions


def test_state_dict_has_the_published_names() -> None:
    with torch.device("meta"):
        keys = set(build_backbone("iresnet18", 512).state_dict())
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}

    def with_norm(prefix: str) -> set[str]:
        return {f"{prefix}.{name}" for name in norm}

    expected = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    expected |= with_norm("bn1") | with_norm("bn2") | with_norm("features")
    for layer in range(1, 5):
        for block in range(2):
            prefix = f"layer{layer}.{block}"
            expected |= {f"{prefix}.{name}.weight" for name in ("conv1", "conv2", "prelu")}
            for name in ("bn1", "bn2", "bn3"):
                expected |= with_norm(f"{prefix}.{name}")
        expected |= {f"layer{layer}.0.downsample.0.weight"}
        expected |= with_norm(f"layer{layer}.0.downsample.1")
    assert keys == expected


def test_se_adds_the_published_names_to_every_block_and_nothing_else() -> None:
    with torch.device("meta"):
        plain = build_backbone("iresnet34", 512).state_dict()
        state = build_backbone("iresnet34-se", 512).state_dict()
    blocks = {key.rsplit(".", 2)[0] for key in plain if key.endswith(".conv1.weight")}
    assert len(blocks) == 3 + 4 + 6 + 3
    added = {f"{block}.se_block.{name}.weight" for block in blocks for name in ("fc1", "fc2")}
    assert state.keys() - plain.keys() == added
    assert state["layer4.2.se_block.fc1.weight"].shape == (32, 512, 1, 1)
    assert state["layer1.0.se_block.fc2.weight"].shape == (64, 4, 1, 1)


def test_se_weighs_channels_by_the_published_formula() -> None:
    torch.manual_seed(0)
    block = SqueezeExcitation(32)
    features = torch.randn(2, 32, 5, 7)
    squeezed = features.double().mean((2, 3))
    hidden = (squeezed @ block.fc1.weight[:, :, 0, 0].double().T).clamp(min=0)
    weights = (hidden @ block.fc2.weight[:, :, 0, 0].double().T).sigmoid()
    wanted = features.double() * weights[:, :, None, None]
    torch.testing.assert_close(block(features).double(), wanted, atol=1e-6, rtol=0)


def test_initial_weights_and_the_fixed_scale() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("iresnet18", 64)
    state = backbone.state_dict()
    assert state["layer4.0.conv1.weight"].std().item() == pytest.approx(0.1, rel=0.01)
    frozen = [name for name, value in backbone.named_parameters() if not value.requires_grad]
    assert frozen == ["features.weight"]
    assert bool((state["features.weight"] == 1).all())


def test_dropout_belongs_to_iresnet50_only() -> None:
    def rate(name: str) -> float:
        with torch.device("meta"):
            backbone = build_backbone(name, 8)
        return float(backbone.get_submodule("dropout").p)  # type: ignore[arg-type]

    assert [rate(n) for n in ("iresnet18", "iresnet34", "iresnet50", "iresnet100")] == [
        0,
        0,
        0.4,
        0,
    ]


@pytest.mark.parametrize("name", ["compact", "mobilefacenet", "iresnet18", "iresnet18-se"])
def test_shape_of_embeddings(name: str) -> None:
    backbone = build_backbone(name, 48).eval()
    with torch.inference_mode():
        assert backbone(torch.zeros(2, 3, 112, 112)).shape == (2, 48)


def test_compact_is_small_and_fast() -> None:
    backbone = build_backbone("compact", 128).to(memory_format=torch.channels_last)
    assert 0.2e6 < sum(parameter.numel() for parameter in backbone.parameters()) < 1e6
    faces = torch.zeros(64, 112, 112, 3).permute(0, 3, 1, 2)
    backbone(faces).sum().backward()
    start = time.process_time()
    for _ in range(3):
        backbone(faces).sum().backward()
    cores = torch.get_num_threads()
    assert 3 * 64 * cores / (time.process_time() - start) > 300


def test_unknown_backbone_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="iresnet34"):
        build_backbone("resnet", 8)
    assert "compact" in BACKBONES
