"""The loss of group-relative policy optimization: pure functions of log-probabilities, rewards and counts."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.training.objective.engine_correction import engine_ratio, engine_weights
    from grit_lightning.training.objective.group_advantages import (
        STD_EPSILON,
        advantages,
        mean_std,
        moments,
        wide_dtype,
        zero_variance,
    )
    from grit_lightning.training.objective.loss import LossTerms, kl_divergence, log_ratio, policy_loss, token_weights
    from grit_lightning.training.objective.options import Objective

__all__ = [
    "STD_EPSILON",
    "LossTerms",
    "Objective",
    "advantages",
    "engine_ratio",
    "engine_weights",
    "kl_divergence",
    "log_ratio",
    "mean_std",
    "moments",
    "policy_loss",
    "token_weights",
    "wide_dtype",
    "zero_variance",
]

__getattr__ = lazy_face(
    __name__,
    {
        "engine_correction": ["engine_ratio", "engine_weights"],
        "group_advantages": ["STD_EPSILON", "advantages", "mean_std", "moments", "wide_dtype", "zero_variance"],
        "loss": ["LossTerms", "kl_divergence", "log_ratio", "policy_loss", "token_weights"],
        "options": ["Objective"],
    },
)
