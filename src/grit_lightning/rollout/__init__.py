"""Sampling of completions: groups for training, greedy completions for evaluation."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.rollout.engine import BuiltIn
    from grit_lightning.rollout.sampler import Sampler, greedy
    from grit_lightning.rollout.vllm.engine import VLLM

__all__ = ["VLLM", "BuiltIn", "Sampler", "greedy"]

__getattr__ = lazy_face(
    __name__,
    {
        "engine": ["BuiltIn"],
        "sampler": ["Sampler", "greedy"],
        "vllm.engine": ["VLLM"],
    },
)
