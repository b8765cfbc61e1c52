"""Run the smoke pipeline OUT again and again, killing it in one stage after another.

Prints each run's messages. Processes are forked before torch has computed anything.
"""

import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mstkd_training.loop import LoopSettings
from mstkd_training.pipeline import run_pipeline
from mstkd_training.progress import Bar, SilentReporter
from mstkd_training.recipe_file import load_recipe

STAGES = (
    "data",
    "teacher_asian",
    "teacher_african",
    "embeddings",
    "adaptor",
    "targets",
    "student",
)


class Killing(SilentReporter):
    """Kills its own process in the middle of one stage."""

    def __init__(self, stage: str | None) -> None:
        self.stage = stage

    def message(self, text: str) -> None:
        print(text, flush=True)

    def bar(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Bar]:
        doomed = title == self.stage

        class _Bar:
            seen = done

            def advance(self, faces: int, shown: object = None) -> None:
                self.seen += faces
                if doomed and self.seen >= 0.6 * total:
                    os.kill(os.getpid(), signal.SIGKILL)

        return nullcontext(_Bar())


def main() -> int:
    folder = Path(sys.argv[1])
    recipe = load_recipe("smoke", ["embeddings.batch_size=8"])
    for stage in (*STAGES, None):
        child = os.fork()
        if child == 0:
            print(f"-- until {stage}", flush=True)
            settings = LoopSettings(checkpoint_steps=1)
            run_pipeline(recipe, folder, Killing(stage), settings=settings)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status != (signal.SIGKILL if stage else 0):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
