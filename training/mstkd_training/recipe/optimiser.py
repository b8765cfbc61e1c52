"""How a network is trained."""

from typing import Self

from pydantic import Field, model_validator

from mstkd_training.recipe.section import Section


class OptimiserSection(Section):
    """SGD with momentum and learning-rate steps.

    Attributes:
        epochs: Passes over the data.
        batch_size: The largest batch.
        learning_rate_at_512: Learning rate for a batch of 512; it scales with the batch size.
        steps: Finished epochs after which the learning rate is multiplied by `step_factor`.
        step_factor: That factor.
        momentum: SGD's momentum.
        weight_decay: L2 penalty on all trained parameters.
        clip_norm: Largest gradient norm over all parameters.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate_at_512: float = Field(gt=0)
    steps: tuple[int, ...] = ()
    step_factor: float = Field(default=0.1, gt=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip_norm: float = Field(default=5.0, gt=0)

    @property
    def learning_rate(self) -> float:
        """The learning rate of this batch size."""
        return self.learning_rate_at_512 * self.batch_size / 512

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        rising = all(a < b for a, b in zip((0, *self.steps), self.steps, strict=False))
        if not rising or any(step >= self.epochs for step in self.steps):
            raise ValueError(
                f"steps {list(self.steps)} must rise and lie between 1 and epochs - 1 "
                f"({self.epochs - 1})"
            )
        return self
