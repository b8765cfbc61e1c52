"""The paper's question, asked of rendered faces: do specialised teachers teach more fairly?"""

from mstkd_training.experiment.arms import ARMS, Arm, require_suitable
from mstkd_training.experiment.figures import METRICS, Figures, Result
from mstkd_training.experiment.report import print_tables, write_results
from mstkd_training.experiment.runs import run_experiment
from mstkd_training.experiment.statistics import Estimate, estimate, paired_differences, summarise

__all__ = [
    "ARMS",
    "METRICS",
    "Arm",
    "Estimate",
    "Figures",
    "Result",
    "estimate",
    "paired_differences",
    "print_tables",
    "require_suitable",
    "run_experiment",
    "summarise",
    "write_results",
]
