"""What holds for every head."""

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from mstkd_training.heads import HEADS, build_head
from mstkd_training.recipe.networks import HeadName, HeadSection


def section(name: Any) -> HeadSection:
    std = 0.05 if name.startswith("elastic") else None
    return HeadSection(name=name, scale=64.0, margin_mean=0.4, margin_std=std)


def test_recipes_know_exactly_the_heads_that_exist() -> None:
    assert set(HEADS) == set(get_args(HeadName))


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_float32_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    head = build_head(section(name), 16, 4)
    vectors, labels = torch.randn(3, 16).bfloat16(), torch.tensor([0, 1, 2])
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(vectors, labels)
    assert logits.dtype == torch.float32
    # Inner products in bfloat16 would differ from these by 0.1 and more.
    other = build_head(section(name), 16, 4)
    other.load_state_dict({**head.state_dict(), **dict(_first_statistics(name))})
    torch.manual_seed(1)
    torch.testing.assert_close(logits, other(vectors.float(), labels), atol=1e-4, rtol=0)


def _first_statistics(name: str) -> dict[str, torch.Tensor]:
    return dict(build_head(section(name), 16, 4).named_buffers())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("length", [1e-20, 1e-3, 1.0, 1e4])
def test_embeddings_on_their_class_and_opposite_to_it_train_without_nan(
    name: str, length: float
) -> None:
    torch.manual_seed(0)
    head = build_head(section(name), 8, 3)
    directions = functional.normalize(head.get_parameter("weight").detach())
    vectors = (torch.cat([directions, -directions]) * length).requires_grad_()
    labels = torch.arange(3).repeat(2)
    logits = head(vectors, labels)
    functional.cross_entropy(logits, labels).backward()
    assert torch.isfinite(logits).all()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert (weight_gradient := head.get_parameter("weight").grad) is not None
    assert torch.isfinite(weight_gradient).all()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_finite_differences_in_double_precision(name: str, training: bool) -> None:
    torch.manual_seed(0)
    head = build_head(section(name), 6, 4).double().train(training)
    statistics = {key: value.clone() for key, value in head.named_buffers()}
    vectors = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0])
    still = 1e-12 if statistics else None  # gradients do not pass through running statistics
    frozen = build_head(section(name).model_copy(update={"momentum": still}), 6, 4)
    frozen = frozen.double().train(training)

    def logits(embeddings: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(7)  # the same draws at every call
        for key, value in statistics.items():
            frozen.get_buffer(key).copy_(value)
        answer = torch.func.functional_call(frozen, {"weight": weight}, (embeddings, labels))
        assert isinstance(answer, torch.Tensor)
        return answer

    if name == "adaface":
        # Gradients do not pass through the length, so it has to stay as it is.
        length = vectors.detach().norm(dim=1, keepdim=True)
        free = logits

        def logits(embeddings: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return free(functional.normalize(embeddings) * length, weight)

    weight = head.get_parameter("weight")
    assert torch.autograd.gradcheck(logits, (vectors, weight))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "arcface", "margin_std": 0.05}, "margin_std belongs to the elastic heads"),
        ({"name": "elastic-cosface-plus"}, "margin_std belongs to the elastic heads"),
        ({"name": "cosface", "momentum": 0.1}, "momentum belongs to"),
        ({"name": "curricularface", "concentration": 0.3}, "concentration belongs to adaface"),
        ({"name": "sphereface"}, "elastic-arcface"),
    ],
)
def test_a_recipe_cannot_set_what_a_head_ignores(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HeadSection(scale=64.0, margin_mean=0.5, **fields)


@pytest.mark.parametrize("name", HEADS)
def test_a_section_survives_being_written_and_read(name: str) -> None:
    assert HeadSection.model_validate(section(name).model_dump(mode="json")) == section(name)
