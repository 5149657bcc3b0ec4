"""Sampling of completions: groups for training, greedy completions for evaluation."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.rollout.sampler import Sampler, greedy

__all__ = ["Sampler", "greedy"]

__getattr__ = lazy_face(
    __name__,
    {
        "sampler": ["Sampler", "greedy"],
    },
)
