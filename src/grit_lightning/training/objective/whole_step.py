"""Advantages and token weights of one rank, from statistics of the whole step over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from grit_lightning.model.packing import completion_lengths, truncated
from grit_lightning.training.objective.group_advantages import advantages, mean_std, moments, wide_dtype
from grit_lightning.training.objective.loss import token_weights
from grit_lightning.training.objective.options import Objective
from grit_lightning.types import Group

SumOverRanks = Callable[[Tensor], Tensor]


def step_advantages(rewards_P_G: Tensor, objective: Objective, sum_over_ranks: SumOverRanks) -> Tensor:
    """Return the advantages of this rank's completions, shape (P, G); see :func:`~.group_advantages.advantages`."""
    if objective.advantage_scale != "batch":
        return advantages(rewards_P_G, objective.advantage_scale)
    _, std = mean_std(sum_over_ranks(moments(rewards_P_G)))
    return advantages(rewards_P_G, "batch", std)


def step_token_weights(
    groups: Sequence[Group],
    rewards_P_G: Tensor,
    objective: Objective,
    sum_over_ranks: SumOverRanks,
    max_completion_tokens: int,
) -> Tensor:
    """Return the loss weight of each completion's tokens, from counts over all ranks, shape (P·G,).

    Args:
        groups: the groups of this rank.
        rewards_P_G: their rewards, NaN where unscored.
        objective: options of the loss.
        sum_over_ranks: sums a tensor over all ranks.
        max_completion_tokens: maximum length of a sampled completion in tokens.
    """
    device = rewards_P_G.device
    lengths_C = completion_lengths(groups).to(device)
    keep_C = ~rewards_P_G.isnan().flatten()
    if objective.mask_truncated:
        keep_C &= ~truncated(groups).to(device)
    kept = torch.stack([keep_C.sum(), (lengths_C * keep_C).sum()])
    counts = sum_over_ranks(kept.to(wide_dtype(device)))
    return token_weights(
        lengths_C,
        keep_C,
        normalization=objective.normalization,
        num_completions=counts[0].item(),
        num_tokens=counts[1].item(),
        max_completion_tokens=max_completion_tokens,
    )
