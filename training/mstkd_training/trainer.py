"""The training loop that every stage shares: SGD, learning-rate steps, clipping, resume."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mstkd_serve.errors import RecipeError
from mstkd_training.checkpoint import Checkpoint
from mstkd_training.progress import Reporter
from mstkd_training.recipe import OptimiserSection


@dataclass(frozen=True)
class StepResult:
    """What one batch gave.

    Attributes:
        loss: Scalar to minimise, the mean over the batch.
        shown: Further means over the batch, by the name that people see.
    """

    loss: Tensor
    shown: Mapping[str, Tensor]


def classified(logits: Tensor, labels: Tensor) -> StepResult:
    """Return the cross-entropy of a batch, and show the share of right classes.

    Args:
        logits: float32 `(B, classes)`.
        labels: int64 `(B,)`.
    """
    correct = logits.argmax(1) == labels
    return StepResult(
        nn.functional.cross_entropy(logits, labels), {"accuracy": correct.float().mean()}
    )


Step = Callable[[Tensor, Tensor], StepResult]
"""From indices (int64 `(B,)`) and which of them to flip (bool `(B,)`) to a result."""


def fit(
    name: str,
    module: nn.Module,
    step: Step,
    *,
    samples: int,
    section: OptimiserSection,
    seed: int,
    checkpoint: Checkpoint,
    reporter: Reporter,
) -> dict[str, float]:
    """Train `module` in place.

    Every epoch visits every sample once, in random order, each flipped left to right with
    probability 1/2. After every epoch the weights, the optimiser, the scheduler and the random
    state are written; a run that was killed goes on from there and ends with the same weights
    as one that was not. The caller's own random state is left as it was.

    Args:
        name: What is being trained, for messages.
        module: Everything that is trained and stored, the head included.
        step: Computes the loss of one batch.
        samples: Number of training samples, 2 or more.
        section: The optimiser's part of the recipe.
        seed: Seed of order, flips, margins and dropout.
        checkpoint: Where to write the state; removing it afterwards is the caller's.
        reporter: Where progress goes.

    Returns:
        The means over the last epoch: `loss` and what `step` showed.

    Raises:
        RecipeError: The loss stopped being a finite number.
    """
    optimiser = torch.optim.SGD(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=section.learning_rate,
        momentum=section.momentum,
        weight_decay=section.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        optimiser, list(section.steps), gamma=section.step_factor
    )
    means: dict[str, float] = {}
    first_epoch = 0
    module.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = checkpoint.load()
        if state is not None:
            module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
            scheduler.load_state_dict(state["scheduler"])
            torch.set_rng_state(state["random"])
            first_epoch, means = state["epoch"], state["means"]
            reporter.message(f"{name}: goes on after epoch {first_epoch} of {section.epochs}")
        with reporter.bar(name, samples * section.epochs, samples * first_epoch) as bar:
            for epoch in range(first_epoch, section.epochs):
                totals: dict[str, float] = {}
                for indices, flipped in batches(samples, section.batch_size):
                    result = step(indices, flipped)
                    _descend(optimiser, result.loss, section.clip_norm)
                    shown = _numbers(result)
                    for key, value in shown.items():
                        totals[key] = totals.get(key, 0.0) + value * len(indices)
                    bar.advance(len(indices), {"epoch": epoch + 1, **shown})
                scheduler.step()
                means = {key: total / samples for key, total in totals.items()}
                _require_finite(name, epoch, means)
                checkpoint.save(
                    {
                        "epoch": epoch + 1,
                        "means": means,
                        "module": module.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "scheduler": scheduler.state_dict(),
                        "random": torch.get_rng_state(),
                    }
                )
    module.eval()
    return means


def batches(samples: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw one epoch from torch's global random state.

    The samples are dealt into batches of nearly equal size, so that none is dropped and no
    last batch is too small for batch normalisation.

    Args:
        samples: Number of samples.
        batch_size: The largest batch.

    Yields:
        Indices int64 `(B,)`, and which of them to flip, bool `(B,)`.
    """
    order = torch.randperm(samples)
    flips = torch.rand(samples) < 0.5
    parts = math.ceil(samples / batch_size)
    yield from zip(order.tensor_split(parts), flips.tensor_split(parts), strict=True)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, clip_norm: float) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimiser.step()


def _numbers(result: StepResult) -> dict[str, float]:
    values: dict[str, Any] = {"loss": result.loss, **result.shown}
    return {key: float(value.detach()) for key, value in values.items()}


def _require_finite(name: str, epoch: int, means: Mapping[str, float]) -> None:
    if not all(math.isfinite(value) for value in means.values()):
        raise RecipeError(
            f"{name}: the loss is no longer a finite number after epoch {epoch + 1}. Lower "
            "optimiser.learning_rate in this stage's section of the recipe and run again; the "
            "epochs before are kept only if the recipe stays as it was."
        )
