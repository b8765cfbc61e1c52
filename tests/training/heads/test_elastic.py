import math

import pytest
import torch

from mstkd_training.heads.cosine import add_margin
from mstkd_training.heads.elastic import ElasticArcFace, ElasticCosFace


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


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0 + 1e-6, -1.0 - 1e-6, 0.0])
def test_gradient_of_the_margin_is_finite_everywhere(cosine: float) -> None:
    value = torch.tensor([cosine], requires_grad=True)
    result = add_margin(value, torch.tensor([0.5]))
    result.sum().backward()
    assert value.grad is not None
    assert torch.isfinite(result).all()
    assert torch.isfinite(value.grad).all()
    assert value.grad.abs().item() < 1000


def test_only_the_true_class_gets_the_margin() -> None:
    torch.manual_seed(0)
    vectors, labels = torch.randn(7, 16), torch.arange(7) % 5
    true = torch.nn.functional.one_hot(labels, 5).bool()
    arc = ElasticArcFace(16, 5, margin_mean=0.5)
    cosines, logits = arc.cosines(vectors), arc(vectors, labels)
    torch.testing.assert_close(logits[~true], 64 * cosines[~true])
    torch.testing.assert_close(logits[true], 64 * (cosines[true].acos() + 0.5).cos())
    cos = ElasticCosFace(16, 5, margin_mean=0.35)
    cosines, logits = cos.cosines(vectors), cos(vectors, labels)
    torch.testing.assert_close(logits[~true], 64 * cosines[~true])
    torch.testing.assert_close(logits[true], 64 * (cosines[true] - 0.35))


@pytest.mark.parametrize("ordered", [False, True])
def test_margins_vary_by_sample_in_training_and_follow_the_seed(ordered: bool) -> None:
    head = ElasticArcFace(16, 2, scale=1.0, margin_mean=0.5, margin_std=0.05, ordered=ordered)
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


@pytest.mark.parametrize("kind", [ElasticArcFace, ElasticCosFace])
def test_plus_gives_the_largest_margin_to_the_sample_farthest_from_its_class(
    kind: type[ElasticArcFace] | type[ElasticCosFace],
) -> None:
    torch.manual_seed(0)
    true = torch.rand(50, 1) * 2 - 1
    head = kind(8, 3, margin_mean=0.5, margin_std=0.05, ordered=True)
    margins = head.draw(true)
    by_falling_angle = margins[true.flatten().argsort()].flatten()
    assert bool((by_falling_angle.diff() <= 0).all())
    assert margins.unique().numel() == 50
    plain = kind(8, 3, margin_mean=0.5, margin_std=0.05)
    torch.manual_seed(1)
    drawn = plain.draw(true)
    torch.manual_seed(1)
    torch.testing.assert_close(head.draw(true).sort(0).values, drawn.sort(0).values)


def test_a_margin_drawn_below_zero_counts_as_zero() -> None:
    head = ElasticCosFace(8, 3, margin_mean=0.01, margin_std=0.4)
    torch.manual_seed(0)
    margins = head.draw(torch.zeros(1000, 1))
    assert margins.min() == 0
    assert (margins == 0).float().mean() == pytest.approx(0.49, abs=0.05)
