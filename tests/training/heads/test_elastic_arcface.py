import math

import pytest
import torch

from mstkd_training.heads import ElasticArcFace
from mstkd_training.heads.elastic_arcface import add_margin


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0 + 1e-6, -1.0 - 1e-6, 0.0])
def test_gradient_is_finite_everywhere(cosine: float) -> None:
    value = torch.tensor([cosine], requires_grad=True)
    result = add_margin(value, torch.tensor([0.5]))
    result.sum().backward()
    assert value.grad is not None
    assert torch.isfinite(result).all()
    assert torch.isfinite(value.grad).all()
    assert value.grad.abs().item() < 1000


def test_equals_the_angle_formula_in_double_precision() -> None:
    cosines = torch.linspace(-0.999, 0.999, 2001, requires_grad=True)
    margins = torch.full_like(cosines, 0.5)
    result = add_margin(cosines, margins)
    (gradient,) = torch.autograd.grad(result.sum(), cosines)

    exact = cosines.detach().double().requires_grad_()
    theta = exact.acos()
    beyond = exact - 0.5 * math.sin(0.5)
    reference = torch.where(theta + 0.5 < math.pi, (theta + 0.5).cos(), beyond)
    (wanted,) = torch.autograd.grad(reference.sum(), exact)
    torch.testing.assert_close(result.double(), reference, atol=2e-6, rtol=0)
    torch.testing.assert_close(gradient.double(), wanted, atol=0, rtol=2e-4)


def test_embeddings_on_their_class_and_opposite_to_it_train_without_nan() -> None:
    torch.manual_seed(0)
    head = ElasticArcFace(8, 3)
    vectors = torch.cat([head.weight.detach(), -head.weight.detach()]).requires_grad_()
    labels = torch.arange(3).repeat(2)
    torch.nn.functional.cross_entropy(head(vectors, labels), labels).backward()
    assert vectors.grad is not None
    assert head.weight.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert torch.isfinite(head.weight.grad).all()


def test_only_the_true_class_gets_the_margin() -> None:
    torch.manual_seed(0)
    head = ElasticArcFace(16, 5, scale=64.0, margin_mean=0.5, margin_std=0.0)
    vectors, labels = torch.randn(7, 16), torch.arange(7) % 5
    cosines, logits = head.cosines(vectors), head(vectors, labels)
    true = torch.nn.functional.one_hot(labels, 5).bool()
    torch.testing.assert_close(logits[~true], 64 * cosines[~true])
    torch.testing.assert_close(logits[true], 64 * (cosines[true].acos() + 0.5).cos())


def test_margins_vary_by_sample_in_training_and_follow_the_seed() -> None:
    head = ElasticArcFace(16, 2, scale=1.0, margin_mean=0.5, margin_std=0.05)
    vectors = torch.randn(1, 16, generator=torch.Generator().manual_seed(1)).repeat(4000, 1)
    labels = torch.zeros(4000, dtype=torch.int64)
    torch.manual_seed(3)
    first = head(vectors, labels)[:, 0]
    torch.manual_seed(3)
    assert torch.equal(first, head(vectors, labels)[:, 0])
    theta = head.cosines(vectors[:1])[0, 0].acos()
    margins = first.acos() - theta
    assert margins.mean().item() == pytest.approx(0.5, abs=0.005)
    assert margins.std().item() == pytest.approx(0.05, abs=0.003)
    assert head.eval()(vectors, labels)[:, 0].unique().numel() == 1


def test_logits_are_float32_under_autocast() -> None:
    head = ElasticArcFace(16, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(torch.randn(3, 16).bfloat16(), torch.tensor([0, 1, 2]))
    assert logits.dtype == torch.float32
