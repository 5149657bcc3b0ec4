"""Advantages of completions relative to their group, and statistics that ranks can add up."""

from __future__ import annotations

import torch
from torch import Tensor

from grit_lightning.training.objective.options import AdvantageScale

STD_EPSILON = 1e-4
"""Added to the standard deviation (GRIT's and TRL's value): a group of equal rewards has advantage 0 instead of 0/0."""


def advantages(rewards_P_G: Tensor, scale: AdvantageScale, batch_std: Tensor | None = None) -> Tensor:
    """Return group-relative advantages, shape (P, G); 0 where the reward is NaN (unscored).

    Each reward is centred by the mean over the scored completions of its group, then divided. The divisor is

    - ``group``: the group's standard deviation + 1e-4 (GRPO, arXiv 2402.03300);
    - ``batch``: ``batch_std`` + 1e-4, over all scored completions of the step (arXiv 2508.08221 §4.1);
    - ``none``: 1 (Dr. GRPO, arXiv 2503.20783: the group's std would give too easy and too hard questions more weight).

    Standard deviations are unbiased (divided by n − 1), as in GRIT's code; that of a single value is 0.

    Raises:
        ValueError: ``scale`` is ``batch`` and ``batch_std`` is missing.
    """
    scored_P_G = ~rewards_P_G.isnan()
    count_P_1 = scored_P_G.sum(dim=1, keepdim=True)
    mean_P_1 = rewards_P_G.nansum(dim=1, keepdim=True) / count_P_1.clamp(min=1)
    centred_P_G = torch.where(scored_P_G, rewards_P_G - mean_P_1, 0.0)
    if scale == "none":
        return centred_P_G
    if scale == "batch":
        if batch_std is None:
            raise ValueError("advantage scale 'batch' needs batch_std")
        return centred_P_G / (batch_std + STD_EPSILON)
    std_P_1 = (centred_P_G.square().sum(dim=1, keepdim=True) / (count_P_1 - 1).clamp(min=1)).sqrt()
    return centred_P_G / (std_P_1 + STD_EPSILON)


def zero_variance(rewards_P_G: Tensor) -> Tensor:
    """Mark groups without a learning signal: equal scored rewards, or fewer than two scored. Bool, shape (P,)."""
    high_P = rewards_P_G.nan_to_num(nan=-torch.inf).amax(dim=1)
    low_P = rewards_P_G.nan_to_num(nan=torch.inf).amin(dim=1)
    return high_P <= low_P


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype for sums over many values: float64, or float32 on Apple GPUs, which lack float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def moments(values: Tensor) -> Tensor:
    """Return count, sum and sum of squares of the values that are not NaN, shape (3,). Ranks can add them up."""
    finite = values[~values.isnan()].to(wide_dtype(values.device))
    return torch.stack([torch.full_like(finite.sum(), finite.numel()), finite.sum(), finite.square().sum()])


def mean_std(moments_3: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased standard deviation from :func:`moments`. No values: mean NaN; fewer than two: std 0."""
    count, total, squares = moments_3.unbind(-1)
    mean = total / count
    variance = (squares - count * mean.square()).clamp(min=0) / (count - 1).clamp(min=1)
    return mean, torch.where(count > 1, variance.sqrt(), 0.0)
