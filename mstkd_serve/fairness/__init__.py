"""How well verification works, and how equally well for every group.

Usable on any scores, ours or not: `evaluate(read_scores("scores.csv"))`.
"""

from mstkd_serve.fairness.allpairs import all_pair_scores, evaluate_all_pairs
from mstkd_serve.fairness.calibrate import calibrate, fit_probability
from mstkd_serve.fairness.evaluate import evaluate, evaluate_groups
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
    "evaluate_all_pairs",
    "evaluate_groups",
    "fit_probability",
    "make_scores",
    "read_scores",
    "write_report",
]
