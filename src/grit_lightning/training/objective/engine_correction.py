"""Importance weights that correct for a sampler whose probabilities differ a little from the policy's.

An inference engine computes with other kernels than the trainer, often in fewer bits, so completions come from
π_engine and not from π_old. Each token's policy term is therefore multiplied by a weight without gradient,

    token     u_t = π_old(o_t | q, o_<t) / π_engine(o_t | q, o_<t)
    sequence  u   = Π_t u_t, the same for all tokens of a completion

which is bounded, because a few large ratios would dominate the sum: ``truncate`` uses min(u, C) (truncated importance
sampling, Ionides 2008; for engines Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL
Training", 2025), ``mask`` uses u where u ≤ C and else 0 (Liu et al., "When Speed Kills Stability", 2025). The names
are those of TRL's ``vllm_importance_sampling_mode``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grit_lightning.training.objective.loss import sum_by_completion
from grit_lightning.training.objective.options import EngineCorrection


def engine_ratio(
    old_logprobs_T: Tensor, engine_logprobs_T: Tensor, completion_T: Tensor, correction: EngineCorrection
) -> Tensor:
    """Return the unbounded ratio u of each token, shape (T,): per token, or for ``sequence_…`` per completion.

    Args:
        old_logprobs_T: log π_old of the sampled tokens, without gradient.
        engine_logprobs_T: log π_engine of the same tokens.
        completion_T: index of the completion that each token belongs to. ``sequence_…`` needs all tokens of a
            completion in the same micro-batch.
        correction: kind of the correction.
    """
    difference_T = old_logprobs_T - engine_logprobs_T
    if correction.startswith("sequence") and difference_T.numel():
        difference_T = sum_by_completion(difference_T, completion_T)[completion_T]
    return difference_T.exp()


def engine_weights(ratio_T: Tensor, correction: EngineCorrection, cap: float) -> Tensor:
    """Return the weight of each token's policy term, shape (T,); 1 for ``none``.

    Args:
        ratio_T: :func:`engine_ratio`.
        correction: kind of the correction.
        cap: C > 0, the largest weight.
    """
    if correction == "none":
        return torch.ones_like(ratio_T)
    if correction.endswith("mask"):
        return torch.where(ratio_T <= cap, ratio_T, 0.0)
    return ratio_T.clamp(max=cap)
