"""Predictions on held-out samples, and metrics computed from them alone."""

from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.evaluation.intervals import Difference, Interval, Intervals, differences, intervals
from grit_lightning.evaluation.metrics import MACRO, OVERALL, Metrics, is_counting, is_right, sample_values, summary
from grit_lightning.evaluation.predictions import Prediction, read_predictions, write_predictions
from grit_lightning.evaluation.tables import comparison_table, overview

__all__ = [
    "MACRO",
    "OVERALL",
    "Difference",
    "Evaluator",
    "Interval",
    "Intervals",
    "Metrics",
    "Prediction",
    "comparison_table",
    "differences",
    "intervals",
    "is_counting",
    "is_right",
    "overview",
    "read_predictions",
    "sample_values",
    "summary",
    "write_predictions",
]
