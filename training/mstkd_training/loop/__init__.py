"""The training loop that every stage shares."""

from mstkd_training.loop.fit import fit
from mstkd_training.loop.processes import ALONE, Processes, join_processes
from mstkd_training.loop.settings import USUAL, LoopSettings
from mstkd_training.loop.task import StepResult, Task, classified

__all__ = [
    "ALONE",
    "USUAL",
    "LoopSettings",
    "Processes",
    "StepResult",
    "Task",
    "classified",
    "fit",
    "join_processes",
]
