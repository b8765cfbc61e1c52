"""How a run is carried out; nothing here changes what is learned."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class LoopSettings:
    """Settings of one run, from the command line.

    Attributes:
        checkpoint_minutes: The state is written when this long has passed since the last time,
            and after every epoch, and on Ctrl-C.
        checkpoint_steps: The state is also written every so many steps of an epoch; None never.
        tensorboard: Whether to write event files for TensorBoard.
    """

    checkpoint_minutes: float = 10.0
    checkpoint_steps: int | None = None
    tensorboard: bool = False


USUAL: Final = LoopSettings()
"""What a run does where nothing else is said."""
