"""Rewards: functions ``fn(sample, completion, **options) -> float | None``, and their weighted sum.

``None`` means *unscored*. The options have no defaults in the code; their values are in ``conf/reward``. The rewards
follow GRIT's published code with its defects corrected; each docstring names its deviations.
"""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.rewards.answer import answer_bleu, answer_match
    from grit_lightning.rewards.boxes import box_giou, box_iou, box_valid, grounded_region
    from grit_lightning.rewards.consistency import Consistency
    from grit_lightning.rewards.format import answer_format, think_rethink
    from grit_lightning.rewards.text_statistics import digit_share, length_budget, repetition
    from grit_lightning.rewards.weighted_sum import Rewards, Scored

__all__ = [
    "Consistency",
    "Rewards",
    "Scored",
    "answer_bleu",
    "answer_format",
    "answer_match",
    "box_giou",
    "box_iou",
    "box_valid",
    "digit_share",
    "grounded_region",
    "length_budget",
    "repetition",
    "think_rethink",
]

__getattr__ = lazy_face(
    __name__,
    {
        "answer": ["answer_bleu", "answer_match"],
        "boxes": ["box_giou", "box_iou", "box_valid", "grounded_region"],
        "consistency": ["Consistency"],
        "format": ["answer_format", "think_rethink"],
        "text_statistics": ["digit_share", "length_budget", "repetition"],
        "weighted_sum": ["Rewards", "Scored"],
    },
)
