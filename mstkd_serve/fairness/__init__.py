"""How well verification works, and how equally well for every group.

Usable on any scores, ours or not: `evaluate(read_scores("scores.csv"))`.
"""

from mstkd_serve.fairness.allpairs import all_pair_scores
from mstkd_serve.fairness.calibrate import calibrate, fit_probability
from mstkd_serve.fairness.evaluate import evaluate
from mstkd_serve.fairness.report import write_report
from mstkd_serve.fairness.schema import Metrics, ModelDescription
from mstkd_serve.fairness.scores import Scores, make_scores, read_scores

__all__ = [
    "Metrics",
    "ModelDescription",
    "Scores",
    "all_pair_scores",
    "calibrate",
    "evaluate",
    "fit_probability",
    "make_scores",
    "read_scores",
    "write_report",
]
