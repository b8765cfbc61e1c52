"""One process: order, resume, accumulation, precision, the chosen epoch."""

import csv
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from mstkd_serve.errors import DataError, RecipeError
from mstkd_training.checkpoint import Checkpoint
from mstkd_training.heads.noise import normal
from mstkd_training.loop import ALONE, LoopSettings, StepResult, Task, fit
from mstkd_training.loop.order import batches, parts_of
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import OptimiserSection, SelectionSection

SAMPLES = 13
SECTION = OptimiserSection(epochs=4, batch_size=4, learning_rate_at_512=12.8, steps=(2,))


class KilledError(Exception):
    """Stands for a process that ends."""


def make_task(killed_at: int | None = None, validate: Callable[[], float] | None = None) -> Task:
    """A tiny network with everything that has a state or draws numbers."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
    inputs = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(1))
    calls = 0

    def load(indices: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.where(flipped, -1.0, 1.0)[:, None]
        return inputs[indices] * sign, sign

    def step(values: Tensor, sign: Tensor) -> StepResult:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KilledError
        noise = 0.1 * normal(sign.shape, sign.device)
        loss = (network(values) - sign + noise).square().mean()
        return StepResult(loss, {"half": loss / 2})

    def figures() -> Mapping[str, float]:
        assert validate is not None
        assert not network.training
        return {"accuracy_mean": validate(), "accuracy_std": 1.0}

    return Task(
        "net", network, network, SAMPLES, load, step, figures if validate is not None else None
    )


def train(
    task: Task,
    folder: Path,
    section: OptimiserSection = SECTION,
    *,
    fingerprint: str = "f",
    every: int | None = None,
    selection: SelectionSection | None = None,
    settings: LoopSettings | None = None,
) -> dict[str, float]:
    return fit(
        task,
        section=section,
        selection=selection or SelectionSection(),
        seed=5,
        checkpoint=Checkpoint(folder / "c.pt", fingerprint),
        reporter=SilentReporter(),
        processes=ALONE,
        settings=settings or LoopSettings(checkpoint_steps=every),
        logs=folder / "logs",
    )


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "net.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_same_weights(actual: nn.Module, wanted: nn.Module) -> None:
    for key, value in wanted.state_dict().items():
        assert torch.equal(value, actual.state_dict()[key]), key


@pytest.mark.parametrize("killed_at", [2, 6, 11, 16])
@pytest.mark.parametrize("every", [None, 1, 3])
def test_a_killed_run_ends_with_the_weights_of_an_unkilled_one(
    tmp_path: Path, killed_at: int, every: int | None
) -> None:
    whole = make_task()
    figures = train(whole, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(make_task(killed_at), tmp_path / "killed", every=every)
    resumed = make_task()
    assert train(resumed, tmp_path / "killed") == figures
    assert_same_weights(resumed.module, whole.module)


def test_a_state_within_an_epoch_is_where_the_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(make_task(killed_at=7), tmp_path, every=1)
    remaining = 16 - 6
    with pytest.raises(KilledError):
        train(make_task(killed_at=remaining), tmp_path)
    train(make_task(killed_at=remaining + 1), tmp_path)


def test_the_fp16_loss_scale_is_part_of_the_state(tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"precision": "fp16"})
    whole = make_task()
    train(whole, tmp_path / "whole", section)
    with pytest.raises(KilledError):
        train(make_task(killed_at=6), tmp_path / "killed", section, every=1)
    state = Checkpoint(tmp_path / "killed" / "c.pt", "f").load()
    assert state is not None
    assert state["scaler"]["_growth_tracker"] > 0
    resumed = make_task()
    train(resumed, tmp_path / "killed", section)
    assert_same_weights(resumed.module, whole.module)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_nearly_what_fp32_learns(tmp_path: Path, precision: str) -> None:
    seen = set()
    task = make_task()
    module = task.module

    def step(values: Tensor, sign: Tensor) -> StepResult:
        outputs = module(values)
        seen.add(outputs.dtype)
        # So small that no gradient overflows at the first loss scale, which would skip a step.
        return StepResult(0.01 * (outputs.float() - sign).square().mean(), {})

    plain = SECTION.model_copy(update={"learning_rate_at_512": 128.0, "weight_decay": 0.0})
    section = plain.model_copy(update={"precision": precision})
    figures = train(replace(task, step=step), tmp_path / "half", section)
    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert all(value.dtype != torch.float16 for value in module.state_dict().values())
    reference = make_task()
    module = reference.module
    wanted = train(replace(reference, step=step), tmp_path / "full", plain)
    assert figures["loss"] == pytest.approx(wanted["loss"], rel=0.03)
    assert figures["loss"] != wanted["loss"]


def test_accumulated_parts_equal_the_whole_batch(tmp_path: Path) -> None:
    """Without batch normalisation, which sees a part at a time."""
    results = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        inputs = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(1))

        def step(values: Tensor, network: nn.Module = network) -> StepResult:
            noise = normal((len(values), 1), values.device)
            return StepResult((network(values) - noise).square().mean(), {})

        def load(indices: Tensor, flipped: Tensor, inputs: Tensor = inputs) -> tuple[Tensor]:
            return (inputs[indices],)

        section = SECTION.model_copy(update={"accumulate": accumulate, "batch_size": 7})
        task = Task("net", network, network, SAMPLES, load, step)
        figures = train(task, tmp_path / str(accumulate), section)
        results.append((figures["loss"], network.state_dict()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    for key, value in results[0][1].items():
        torch.testing.assert_close(results[1][1][key], value, rtol=1e-5, atol=1e-6)


def test_the_best_epoch_by_mean_minus_std_is_kept(tmp_path: Path) -> None:
    scores = iter([70.0, 90.0, 80.0, 60.0])
    after_two = make_task()
    train(after_two, tmp_path / "two", SECTION.model_copy(update={"epochs": 2, "steps": ()}))
    task = make_task(validate=lambda: next(scores))
    figures = train(task, tmp_path, selection=SelectionSection(std_weight=2.0))
    assert figures["epoch"] == 2
    assert figures["score"] == 88
    assert figures["accuracy_mean"] == 90
    assert_same_weights(task.result, after_two.result)


def test_of_equal_epochs_the_later_is_kept_also_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(make_task(killed_at=10, validate=lambda: 50.0), tmp_path)
    lower = make_task(validate=lambda: 40.0)
    assert train(lower, tmp_path)["epoch"] == 2


def test_validation_can_be_rarer_but_never_misses_the_last_epoch(tmp_path: Path) -> None:
    selection = SelectionSection(every_epochs=3)
    train(make_task(validate=lambda: 50.0), tmp_path, selection=selection)
    rows = read_log(tmp_path)
    assert [bool(row["score"]) for row in rows] == [False, False, True, True]


def test_the_log_has_a_row_an_epoch_with_all_parts_of_the_loss(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(make_task(killed_at=10), tmp_path)
    figures = train(make_task(), tmp_path)
    rows = read_log(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["learning_rate"]) for row in rows] == [0.1, 0.1, 0.01, 0.01]
    assert float(rows[-1]["loss"]) == pytest.approx(figures["loss"], rel=1e-5)
    assert float(rows[-1]["half"]) == pytest.approx(figures["loss"] / 2, rel=1e-5)
    assert all(float(row["images_per_s"]) > 0 for row in rows)


def test_tensorboard_gets_every_epoch_once_also_after_a_kill(tmp_path: Path) -> None:
    settings = LoopSettings(tensorboard=True)
    with pytest.raises(KilledError):
        train(make_task(killed_at=10), tmp_path, settings=settings)
    train(make_task(validate=lambda: 50.0), tmp_path, settings=settings)
    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard" / "net"))
    events.Reload()
    assert [entry.step for entry in events.Scalars("epoch/loss")] == [4, 8, 12, 16]
    assert "epoch/accuracy_mean" in events.Tags()["scalars"]


def test_without_tensorboard_the_option_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RecipeError, match=r"pip install 'mstkd-training\[tensorboard\]'"):
        train(make_task(), tmp_path, settings=LoopSettings(tensorboard=True))


def test_a_checkpoint_of_something_else_is_ignored(tmp_path: Path) -> None:
    train(make_task(), tmp_path, fingerprint="one")
    with pytest.raises(KilledError):
        train(make_task(killed_at=1), tmp_path, fingerprint="two")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(b"half a file")
    with pytest.raises(DataError, match="Remove it"):
        train(make_task(), tmp_path)


def test_every_sample_is_seen_once_in_even_batches() -> None:
    drawn = batches(13, 4, seed=3, epoch=0)
    assert sorted(torch.cat([indices for indices, _ in drawn]).tolist()) == list(range(13))
    assert sorted(len(indices) for indices, _ in drawn) == [3, 3, 3, 4]
    assert 0 < torch.cat([flipped for _, flipped in drawn]).float().mean() < 1
    other = batches(13, 4, seed=3, epoch=1)
    assert not torch.equal(drawn[0][0], other[0][0])


@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_processes_and_parts_share_a_batch_out(accumulate: int, world: int) -> None:
    batch = batches(20, 20, seed=3, epoch=0)[0]
    every = [part for rank in range(world) for part in parts_of(batch, accumulate, rank, world)]
    every.sort(key=lambda part: part.first)
    assert torch.equal(torch.cat([part.indices for part in every]), batch[0])
    assert torch.equal(torch.cat([part.flipped for part in every]), batch[1])
    assert sum(part.last for part in every) == world


def test_parts_of_less_than_two_samples_are_refused(tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"accumulate": 2})
    with pytest.raises(RecipeError, match=r"batches of 3 .* lower optimiser\.accumulate"):
        train(make_task(), tmp_path, section)


def test_a_diverged_loss_names_the_remedy(tmp_path: Path) -> None:
    task = make_task()

    def step(values: Tensor, sign: Tensor) -> StepResult:
        return StepResult(task.module(values).mean() * float("nan"), {})

    with pytest.raises(RecipeError, match="learning_rate_at_512"):
        train(replace(task, step=step), tmp_path)
    assert not (tmp_path / "c.pt").exists()


def test_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    task = make_task()
    torch.manual_seed(9)
    before = torch.get_rng_state()
    train(task, tmp_path)
    assert torch.equal(before, torch.get_rng_state())
