"""What a stage hands to the training loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn


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


@dataclass(frozen=True)
class Task:
    """One training: what is trained, on what.

    Attributes:
        name: For messages and files.
        module: Everything that is trained and stored, the head included.
        result: The part of `module` whose weights the stage keeps.
        samples: Number of training samples.
        load: From indices (int64 `(B,)`) and which of them to flip (bool `(B,)`) to the tensors
            of a batch on the CPU, the axis of samples first. It runs in a thread, one batch
            ahead, and must draw no random numbers.
        step: From those tensors, on the device of the parameters, to the result of the batch.
        validate: From `result` in evaluation mode to figures (percent) with `accuracy_mean` and
            `accuracy_std` among them; None where nothing is held out.
        watch: As `validate`, but for people's eyes alone: what it returns goes into the logs
            and has no say in which weights are kept.
    """

    name: str
    module: nn.Module
    result: nn.Module
    samples: int
    load: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    step: Callable[..., StepResult]
    validate: Callable[[], Mapping[str, float]] | None = None
    watch: Callable[[], Mapping[str, float]] | None = None
