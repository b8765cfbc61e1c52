from pathlib import Path

import pytest

from mstkd_serve.errors import RecipeError
from mstkd_training.recipe_file import load_recipe


@pytest.mark.parametrize("name", ["demo", "smoke", "paper-r34", "paper-r50"])
def test_packaged_recipes_are_valid(name: str) -> None:
    assert load_recipe(name).data.groups[0] == "Asian"


@pytest.mark.parametrize(
    ("name", "backbone"), [("paper-r34", "iresnet34"), ("paper-r50", "iresnet50")]
)
def test_the_papers_recipes_have_the_papers_numbers(name: str, backbone: str) -> None:
    recipe = load_recipe(name)
    assert recipe.data.groups == ("Asian", "African", "Caucasian", "Indian")
    assert recipe.teacher.backbone.name == recipe.student.backbone == backbone
    for section in (recipe.teacher.optimiser, recipe.student.optimiser, recipe.adaptor.optimiser):
        assert (section.epochs, section.steps) == (26, (8, 14, 20, 25))
        assert (section.momentum, section.weight_decay, section.clip_norm) == (0.9, 5e-4, 5.0)
    assert recipe.teacher.optimiser.learning_rate == pytest.approx(0.025)
    assert recipe.adaptor.optimiser.learning_rate == pytest.approx(0.25)
    for head in (recipe.teacher.head, recipe.adaptor.head):
        assert (head.scale, head.margin_mean, head.margin_std) == (64.0, 0.5, 0.05)
    assert recipe.student.distillation_weight == 10_000


def test_the_learning_rate_falls_after_each_step() -> None:
    section = load_recipe("paper-r34").teacher.optimiser
    rates = [section.learning_rate_in(epoch) for epoch in (0, 7, 8, 13, 14, 25)]
    assert rates == pytest.approx([0.025, 0.025, 0.0025, 0.0025, 0.00025, 0.0000025])


def test_learning_rate_scales_with_the_batch() -> None:
    recipe = load_recipe("demo", ["teacher.optimiser.batch_size=128"])
    section = recipe.teacher.optimiser
    assert section.learning_rate == pytest.approx(section.learning_rate_at_512 / 4)


def test_overrides_change_one_field() -> None:
    recipe = load_recipe("smoke", ["student.optimiser.epochs=7", "data.groups=[Indian, Asian]"])
    assert recipe.student.optimiser.epochs == 7
    assert recipe.data.groups == ("Indian", "Asian")
    assert recipe.teacher == load_recipe("smoke").teacher


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.optimiser.epochs=0", r"student\.optimiser\.epochs: .*got 0"),
        ("student.optimiser.epoch=3", r"student\.optimiser\.epoch: there is no such field"),
        ("student.optimiser.steps=[5, 2]", r"student\.optimiser: steps .* must rise"),
        ("teacher.backbone.name=vgg", r"teacher\.backbone\.name: 'vgg' is unknown; use one of"),
        ("data.groups=[Asian, asian]", r"data\.groups: .* must differ"),
        ("student.loss=eaf-kd", r"student: head is needed"),
        ("preprocessing.mean=[1, 2]", r"preprocessing\.mean"),
        ("preprocessing.flip=true", r"preprocessing: flip belongs to the export"),
        ("student.optimiser.epochs", "give key=value"),
        ("seed.x=1", "seed is a value"),
        ("seed=[", "not YAML"),
    ],
)
def test_mistakes_name_the_field(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("smoke", [override])


def test_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"neither a known recipe \(demo, .*smoke\) nor a file"):
        load_recipe("demi")
    for text, message in (("a: [", "not a YAML file"), ("- 1", "must be a mapping")):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError, match=message):
            load_recipe(str(path))
    path.write_text("seed: 1\n")
    with pytest.raises(RecipeError, match="data: this field is missing"):
        load_recipe(str(path))
