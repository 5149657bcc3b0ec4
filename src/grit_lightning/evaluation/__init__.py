"""Evaluation: predictions on held-out samples, their metrics, and comparisons between them."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.evaluation.during_training import DuringTraining
    from grit_lightning.evaluation.evaluator import Evaluator
    from grit_lightning.evaluation.metrics import summary
    from grit_lightning.evaluation.predictions import Prediction, read_predictions, write_predictions

__all__ = ["DuringTraining", "Evaluator", "Prediction", "read_predictions", "summary", "write_predictions"]

__getattr__ = lazy_face(
    __name__,
    {
        "during_training": ["DuringTraining"],
        "evaluator": ["Evaluator"],
        "metrics": ["summary"],
        "predictions": ["Prediction", "read_predictions", "write_predictions"],
    },
)
