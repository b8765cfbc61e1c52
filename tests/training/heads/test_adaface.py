import pytest
import torch
from torch.nn import functional

from mstkd_training.heads.adaface import AdaFace

SCALE, MARGIN, CONCENTRATION = 64.0, 0.4, 0.333


def reference(
    head: AdaFace, vectors: torch.Tensor, labels: torch.Tensor, mean: float, std: float
) -> torch.Tensor:
    """The paper's equations 13 and 14 with angles, in double precision."""
    norms = vectors.double().norm(dim=1).clamp(0.001, 100)
    quality = ((norms - mean) / (std + 1e-3) * CONCENTRATION).clamp(-1, 1)
    cosines = (vectors.double() / vectors.double().norm(dim=1, keepdim=True)) @ (
        functional.normalize(head.weight.detach().double()).T
    )
    rows = torch.arange(len(labels))
    theta = cosines[rows, labels].acos()
    true = (theta - MARGIN * quality).clamp(0, torch.pi).cos() - (MARGIN + MARGIN * quality)
    logits = cosines.clone()
    logits[rows, labels] = true
    return SCALE * logits


@pytest.fixture
def head() -> AdaFace:
    torch.manual_seed(0)
    return AdaFace(8, 3, scale=SCALE, margin=MARGIN)


@pytest.mark.parametrize(("mean", "std"), [(20.0, 100.0), (6.0, 1.5), (3.0, 0.4)])
def test_equals_the_papers_equations(head: AdaFace, mean: float, std: float) -> None:
    vectors, labels = torch.randn(40, 8) * torch.linspace(0.1, 4, 40)[:, None], torch.arange(40) % 3
    head.eval()
    head.norm_mean.fill_(mean)
    head.norm_std.fill_(std)
    wanted = reference(head, vectors, labels, mean, std)
    torch.testing.assert_close(head(vectors, labels).double(), wanted, atol=2e-4, rtol=0)
    assert torch.unique(head.quality(vectors)).numel() > 5


def test_a_longer_embedding_counts_as_a_better_image(head: AdaFace) -> None:
    head.eval()
    head.norm_mean.fill_(10)
    head.norm_std.fill_(3)
    direction = functional.normalize(torch.randn(1, 8))
    vectors = direction * torch.tensor([0.5, 9.0, 10.0, 12.0, 60.0])[:, None]
    quality = head.quality(vectors).flatten()
    assert bool((quality.diff() > 0).all())
    assert quality[0] < 0 < quality[-1] == 1


def test_an_angle_does_not_pass_below_zero(head: AdaFace) -> None:
    """A good image whose angle is smaller than its discount has the cosine 1, not less."""
    head.eval()
    head.norm_mean.fill_(1)
    head.norm_std.fill_(1)
    vectors = 100 * functional.normalize(head.weight.detach())
    true = head(vectors, torch.arange(3)).diagonal() / SCALE
    torch.testing.assert_close(true, torch.full((3,), 1 - 2 * MARGIN), atol=1e-5, rtol=0)


def test_statistics_follow_the_lengths_in_training_and_rest_in_evaluation(head: AdaFace) -> None:
    vectors, labels = torch.randn(6, 8) * 5, torch.arange(6) % 3
    norms = vectors.norm(dim=1)
    head.eval()(vectors, labels)
    assert (head.norm_mean.item(), head.norm_std.item()) == (20, 100)
    head.train()(vectors, labels)
    assert head.norm_mean.item() == pytest.approx(0.99 * 20 + 0.01 * norms.mean().item())
    assert head.norm_std.item() == pytest.approx(0.99 * 100 + 0.01 * norms.std().item())
    assert {"norm_mean", "norm_std"} <= head.state_dict().keys()


def test_a_single_sample_leaves_the_deviation_alone(head: AdaFace) -> None:
    logits = head(torch.randn(1, 8), torch.tensor([0]))
    assert torch.isfinite(logits).all()
    assert head.norm_std.item() == 100
    assert head.norm_mean.item() < 20
