"""How a network is trained."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mstkd_training.recipe.section import Section


class OptimiserSection(Section):
    """SGD with momentum and learning-rate steps.

    Attributes:
        epochs: Passes over the data.
        batch_size: The largest batch, of all processes and accumulated parts together.
        learning_rate_at_512: Learning rate for a batch of 512; it scales with the batch size.
        steps: Finished epochs after which the learning rate is multiplied by `step_factor`.
        step_factor: That factor.
        momentum: SGD's momentum.
        weight_decay: L2 penalty on all trained parameters.
        clip_norm: Largest gradient norm over all parameters.
        accumulate: Parts that a batch is computed in, one after the other, to save memory.
            Batch normalisation then sees a part at a time.
        precision: Arithmetic of the network: `fp32`, or `bf16` or `fp16` by autocast, the last
            with a scaled loss. Weights, heads, losses and the optimiser stay float32.
        sync_batch_norm: Whether processes normalise by the statistics of all of them.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate_at_512: float = Field(gt=0)
    steps: tuple[int, ...] = ()
    step_factor: float = Field(default=0.1, gt=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip_norm: float = Field(default=5.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sync_batch_norm: bool = True

    @property
    def learning_rate(self) -> float:
        """The learning rate of this batch size, before any step."""
        return self.learning_rate_at_512 * self.batch_size / 512

    def learning_rate_in(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.learning_rate * self.step_factor ** sum(step <= epoch for step in self.steps)

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        rising = all(a < b for a, b in zip((0, *self.steps), self.steps, strict=False))
        if not rising or any(step >= self.epochs for step in self.steps):
            raise ValueError(
                f"steps {list(self.steps)} must rise and lie between 1 and epochs - 1 "
                f"({self.epochs - 1})"
            )
        return self


class SelectionSection(Section):
    """Which epoch's weights are kept: the best on held-out identities of the training data.

    The score is the mean accuracy over groups minus `std_weight` times its standard deviation
    over groups (ddof 0), both in percent. The training loss and the test set have no say. Where
    no identities are held out, the last epoch is kept. Of equal scores the later epoch is kept.

    Attributes:
        std_weight: That weight; 0 looks at the mean alone.
        every_epochs: Validate after every so many epochs, and after the last one.
    """

    std_weight: float = Field(default=1.0, ge=0)
    every_epochs: int = Field(default=1, ge=1)
