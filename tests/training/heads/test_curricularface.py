import math

import pytest
import torch
from torch.nn import functional

from mstkd_training.heads.curricularface import CurricularFace

SCALE, MARGIN = 64.0, 0.5


def reference(head: CurricularFace, vectors: torch.Tensor, labels: torch.Tensor, t: float):
    """The paper's equations 9 to 12 with angles, in double precision."""
    weight = functional.normalize(head.weight.detach().double())
    cosines = functional.normalize(vectors.double()) @ weight.T
    logits = torch.empty_like(cosines)
    for row, label in enumerate(labels.tolist()):
        theta = math.acos(cosines[row, label])
        true = math.cos(theta + MARGIN)
        for column, cosine in enumerate(cosines[row].tolist()):
            hard = cosine > true
            logits[row, column] = cosine * (t + cosine) if hard else cosine
        logits[row, label] = true
    return SCALE * logits


@pytest.fixture
def batch() -> tuple[CurricularFace, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = CurricularFace(4, 6, scale=SCALE, margin=MARGIN)
    labels = torch.arange(12) % 6
    vectors = functional.normalize(head.weight.detach())[labels] + 0.4 * torch.randn(12, 4)
    return head, vectors, labels


def test_equals_the_papers_equations(
    batch: tuple[CurricularFace, torch.Tensor, torch.Tensor],
) -> None:
    head, vectors, labels = batch
    head.eval()
    for t in (0.0, 0.3, 0.9):
        head.t.fill_(t)
        wanted = reference(head, vectors, labels, t)
        torch.testing.assert_close(head(vectors, labels).double(), wanted, atol=1e-4, rtol=0)
        plain = SCALE * head.cosines(vectors)
        assert ((plain - wanted).abs() > 1e-3).sum() > 2 * len(labels)  # hard classes are there


def test_t_follows_the_true_cosines_in_training_and_rests_in_evaluation(
    batch: tuple[CurricularFace, torch.Tensor, torch.Tensor],
) -> None:
    head, vectors, labels = batch
    mean = head.cosines(vectors).gather(1, labels[:, None]).mean().item()
    logits = head(vectors, labels)
    assert head.t.item() == pytest.approx(0.01 * mean)
    wanted = reference(head, vectors, labels, head.t.item())  # the new t is used at once
    torch.testing.assert_close(logits.double(), wanted, atol=1e-4, rtol=0)
    head(vectors, labels)
    assert head.t.item() == pytest.approx(0.01 * mean + 0.99 * 0.01 * mean)
    before = head.t.clone()
    head.eval()(vectors, labels)
    assert torch.equal(head.t, before)


def test_t_travels_in_a_checkpoint(
    batch: tuple[CurricularFace, torch.Tensor, torch.Tensor],
) -> None:
    head, vectors, labels = batch
    head(vectors, labels)
    other = CurricularFace(4, 6, scale=SCALE, margin=MARGIN)
    other.load_state_dict(head.state_dict())
    assert other.t.item() == head.t.item() != 0


def test_two_batches_before_one_backward_pass(
    batch: tuple[CurricularFace, torch.Tensor, torch.Tensor],
) -> None:
    head, vectors, labels = batch
    vectors.requires_grad_()
    (head(vectors, labels).sum() + head(vectors, labels).sum()).backward()
    assert vectors.grad is not None
