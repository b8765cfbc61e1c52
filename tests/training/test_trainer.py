from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mstkd_serve.errors import DataError, RecipeError
from mstkd_training.checkpoint import Checkpoint
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import OptimiserSection
from mstkd_training.trainer import Step, StepResult, batches, fit

SECTION = OptimiserSection(epochs=4, batch_size=4, learning_rate_at_512=12.8, steps=(2,))


class KilledError(Exception):
    """Stands for a process that ends."""


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))


def _step(network: nn.Module, killed_at: int | None = None) -> Step:
    inputs = torch.randn(13, 3, generator=torch.Generator().manual_seed(1))
    calls = 0

    def step(indices: Tensor, flipped: Tensor) -> StepResult:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KilledError
        sign = torch.where(flipped, -1.0, 1.0)[:, None]
        return StepResult((network(inputs[indices] * sign) - sign).square().mean(), {})

    return step


def _fit(network: nn.Module, step: Step, path: Path, fingerprint: str = "f") -> dict[str, float]:
    return fit(
        "net",
        network,
        step,
        samples=13,
        section=SECTION,
        seed=5,
        checkpoint=Checkpoint(path, fingerprint),
        reporter=SilentReporter(),
    )


@pytest.mark.parametrize("killed_at", [2, 6, 11, 16])
def test_a_killed_run_ends_with_the_weights_of_an_unkilled_one(
    tmp_path: Path, killed_at: int
) -> None:
    whole = _network()
    means = _fit(whole, _step(whole), tmp_path / "whole.pt")
    killed = _network()
    with pytest.raises(KilledError):
        _fit(killed, _step(killed, killed_at), tmp_path / "killed.pt")
    resumed = _network()
    assert _fit(resumed, _step(resumed), tmp_path / "killed.pt") == means
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_checkpoint_of_something_else_is_ignored(tmp_path: Path) -> None:
    first, second = _network(), _network()
    _fit(first, _step(first), tmp_path / "c.pt", "one")
    with pytest.raises(KilledError):
        _fit(second, _step(second, killed_at=1), tmp_path / "c.pt", "two")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(b"half a file")
    network = _network()
    with pytest.raises(DataError, match="Remove it"):
        _fit(network, _step(network), path)


def test_every_sample_is_seen_once_in_even_batches() -> None:
    torch.manual_seed(0)
    drawn = list(batches(13, 4))
    assert sorted(torch.cat([indices for indices, _ in drawn]).tolist()) == list(range(13))
    assert sorted(len(indices) for indices, _ in drawn) == [3, 3, 3, 4]
    assert 0 < torch.cat([flipped for _, flipped in drawn]).float().mean() < 1


def test_a_diverged_loss_names_the_remedy(tmp_path: Path) -> None:
    network = _network()

    def step(indices: Tensor, flipped: Tensor) -> StepResult:
        return StepResult(network(torch.ones(4, 3)).mean() * float("nan"), {})

    with pytest.raises(RecipeError, match="learning_rate"):
        _fit(network, step, tmp_path / "c.pt")


def test_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    network = _network()
    torch.manual_seed(9)
    before = torch.get_rng_state()
    _fit(network, _step(network), tmp_path / "c.pt")
    assert torch.equal(before, torch.get_rng_state())
