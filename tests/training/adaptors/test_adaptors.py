import pytest
import torch

from mstkd_serve.errors import RecipeError
from mstkd_training.adaptors import ADAPTORS, build_adaptor

DUAL = {"fc1.weight": (512, 2048), "fc1.bias": (512,), "fc2.weight": (512, 512), "fc2.bias": (512,)}


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("sl", {"fc.weight": (512, 2048), "fc.bias": (512,)}),
        ("dul", DUAL),
        ("dldpo", DUAL),
    ],
)
def test_state_dict_has_the_published_names(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    state = build_adaptor(name, 2048, 512).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes


@pytest.mark.parametrize("name", ADAPTORS)
@pytest.mark.parametrize(("groups", "teacher_dim", "embedding_dim"), [(2, 32, 24), (7, 16, 200)])
def test_any_number_of_groups_and_any_dimension(
    name: str, groups: int, teacher_dim: int, embedding_dim: int
) -> None:
    adaptor = build_adaptor(name, groups * teacher_dim, embedding_dim)
    assert adaptor(torch.zeros(3, groups * teacher_dim)).shape == (3, embedding_dim)


def test_dual_layer_equals_the_published_formula() -> None:
    torch.manual_seed(0)
    adaptor = build_adaptor("dul", 12, 8)
    state = adaptor.state_dict()
    batch = torch.randn(5, 12)
    hidden = batch @ state["fc1.weight"].T + state["fc1.bias"]
    hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
    wanted = hidden @ state["fc2.weight"].T + state["fc2.bias"]
    torch.testing.assert_close(adaptor(batch), wanted)


def test_dldpo_drops_a_fifth_in_training_and_is_dul_in_evaluation() -> None:
    torch.manual_seed(0)
    dul, dldpo = build_adaptor("dul", 12, 8), build_adaptor("dldpo", 12, 8)
    dldpo.load_state_dict(dul.state_dict())
    batch = torch.randn(5, 12)
    assert not torch.equal(dldpo(batch), dul(batch))
    assert torch.equal(dldpo.eval()(batch), dul.eval()(batch))
    assert dldpo.get_submodule("dropout").p == 0.2  # type: ignore[comparison-overlap]
    assert torch.equal(dul.train()(batch), dul.eval()(batch))


def test_unknown_adaptor_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="sl, dul, dldpo"):
        build_adaptor("attention", 8, 8)
