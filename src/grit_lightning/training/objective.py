"""The loss of group-relative policy optimization: pure functions of log-probabilities, rewards and counts.

For a prompt q, completions o_1..o_G sampled from π_old with rewards r_1..r_G, the loss of one optimizer step is

    L(θ) = Σ_i Σ_t  w_it · ( −min(ρ_it A_i, clip(ρ_it, 1−ε_low, 1+ε_high) A_i) + β · KL_it )

- advantage  A_i = (r_i − mean r) / (std r + 1e-4)                      GRPO, arXiv 2402.03300 §4.1.2
- ratio      ρ_it = π_θ(o_it | q, o_i<t) / π_old(…)                     per token: GRPO eq. 3
             s_i  = (π_θ(o_i | q) / π_old(o_i | q))^(1/|o_i|)           per sequence: GSPO, arXiv 2507.18071 eq. 7
- clip       ε_low ≠ ε_high: "clip-higher", DAPO, arXiv 2503.14476 §3.1
- weights w: see :func:`token_weights`
- KL:        see :func:`kl_divergence`

Every term is a sum over tokens, with weights computed from counts of the whole step over all ranks. Every split of the
tokens into micro-batches, and every distribution of groups over ranks, adds up to the same loss and the same gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from grit_lightning.errors import ConfigError

Normalization = Literal["grpo", "dr_grpo", "dapo"]
Importance = Literal["token", "sequence"]
KLEstimator = Literal["k1", "k2", "k3"]
AdvantageScale = Literal["group", "batch", "none"]

STD_EPSILON = 1e-4
"""Added to the standard deviation (GRIT's and TRL's value): a group of equal rewards has advantage 0 instead of 0/0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """Options of the loss. Their values are in ``conf/objective``.

    Attributes:
        normalization: how tokens are averaged; see :func:`token_weights`.
        importance: ``token`` for one ratio per token (GRPO), ``sequence`` for one per completion (GSPO).
        clip_low: ε_low ≥ 0; ratios are clipped from below at 1 − ε_low.
        clip_high: ε_high ≥ 0; ratios are clipped from above at 1 + ε_high.
        kl: estimator of KL(π_θ ‖ π_ref); see :func:`kl_divergence`.
        beta: weight β ≥ 0 of the KL term; at 0 no reference is loaded.
        advantage_scale: divisor of the centred reward; see :func:`advantages`.
        iterations: optimizer steps on each batch of rollouts (μ of GRPO's Algorithm 1). Clipping only takes effect
            above 1.
        mask_truncated: leave completions cut off by the token limit out of the loss (DAPO §3.4, overlong filtering).
        skip_zero_variance: leave groups whose rewards are all equal out of the update. Their advantage is 0, so with
            β = 0 the gradient stays the same; with β > 0 their KL term is lost. The counts in the token weights
            include them in either case.

    Raises:
        ConfigError: a value is out of range.
    """

    normalization: Normalization
    importance: Importance
    clip_low: float
    clip_high: float
    kl: KLEstimator
    beta: float
    advantage_scale: AdvantageScale
    iterations: int
    mask_truncated: bool
    skip_zero_variance: bool

    def __post_init__(self) -> None:
        for key in ("clip_low", "clip_high", "beta"):
            if getattr(self, key) < 0:
                raise ConfigError(f"objective.{key} is {getattr(self, key)}, expected a number of at least 0")
        if self.iterations < 1:
            raise ConfigError(f"objective.iterations is {self.iterations}, expected a whole number of at least 1")


class LossTerms(NamedTuple):
    """Sums over one micro-batch. ``loss`` carries the gradient; the other sums are logged.

    Attributes:
        loss: scalar, Σ w·(policy term + β·KL).
        kl: scalar, Σ KL over the tokens, unweighted (0 without a reference).
        clipped: scalar, number of tokens for which the minimum selects the clipped surrogate.
    """

    loss: Tensor
    kl: Tensor
    clipped: Tensor


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


def token_weights(
    lengths_C: Tensor,
    keep_C: Tensor,
    *,
    normalization: Normalization,
    num_completions: float,
    num_tokens: float,
    max_completion_tokens: int,
) -> Tensor:
    """Return the weight w of each completion's tokens, shape (C,); 0 for completions left out of the loss.

    - ``grpo``: 1 / (N · |o_i|): mean over a completion's tokens, then over completions (arXiv 2402.03300 eq. 3);
    - ``dapo``: 1 / Σ_i |o_i|: mean over all tokens (arXiv 2503.14476 eq. 8);
    - ``dr_grpo``: 1 / (N · L_max): no length bias (arXiv 2503.20783 §3.2).

    Args:
        lengths_C: tokens of each completion, |o_i|.
        keep_C: bool; False for unscored completions and, with ``mask_truncated``, for truncated ones.
        normalization: one of the three above.
        num_completions: N, number of kept completions of the whole step, over all ranks.
        num_tokens: Σ |o_i| of the kept completions of the whole step, over all ranks.
        max_completion_tokens: L_max, maximum length of a sampled completion in tokens.
    """
    completions = max(num_completions, 1.0)
    if normalization == "grpo":
        weight_C = 1.0 / (completions * lengths_C.clamp(min=1).float())
    elif normalization == "dapo":
        weight_C = torch.full_like(lengths_C, 1.0 / max(num_tokens, 1.0), dtype=torch.float32)
    else:
        weight_C = torch.full_like(lengths_C, 1.0 / (completions * max_completion_tokens), dtype=torch.float32)
    return torch.where(keep_C, weight_C, 0.0)


def kl_divergence(logprobs_T: Tensor, ref_logprobs_T: Tensor, estimator: KLEstimator) -> Tensor:
    """Return a per-token estimate of KL(π_θ ‖ π_ref) from samples of π_θ, shape (T,).

    With d = log π_θ − log π_ref (J. Schulman, "Approximating KL divergence", 2020):

    - ``k1``: d. Unbiased, high variance, may be negative. Its expected on-policy gradient is 0, so it suits logging.
    - ``k2``: d²/2. Biased, low variance; its gradient is that of the true KL.
    - ``k3``: exp(−d) + d − 1. Unbiased, low variance, never negative (GRPO eq. 4).
    """
    difference_T = logprobs_T - ref_logprobs_T
    if estimator == "k1":
        return difference_T
    if estimator == "k2":
        return difference_T.square() / 2
    return torch.exp(-difference_T) + difference_T - 1


def log_ratio(logprobs_T: Tensor, old_logprobs_T: Tensor, completion_T: Tensor, importance: Importance) -> Tensor:
    """Return log ρ of each token, shape (T,): the token's own log ratio, or (GSPO) the mean over its completion.

    Args:
        logprobs_T: log π_θ of the sampled tokens.
        old_logprobs_T: log π_old of the same tokens.
        completion_T: index of the completion that each token belongs to. ``sequence`` needs all tokens of a completion
            in the same micro-batch.
        importance: ``token`` or ``sequence``.
    """
    log_ratio_T = logprobs_T - old_logprobs_T
    if importance == "token" or log_ratio_T.numel() == 0:
        return log_ratio_T
    num_completions = int(completion_T.max()) + 1
    sums_C = log_ratio_T.new_zeros(num_completions).index_add(0, completion_T, log_ratio_T)
    lengths_C = torch.bincount(completion_T, minlength=num_completions)
    return (sums_C / lengths_C.clamp(min=1))[completion_T]


def policy_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    ref_logprobs_T: Tensor | None,
    *,
    advantages_C: Tensor,
    weights_C: Tensor,
    completion_T: Tensor,
    objective: Objective,
) -> LossTerms:
    """Return the loss of one micro-batch (formula in the module docstring), a sum over its tokens.

    Args:
        logprobs_T: log π_θ of the sampled tokens, with gradient, at the sampling temperature.
        old_logprobs_T: log π_old, without gradient; ``logprobs_T.detach()`` in the first iteration.
        ref_logprobs_T: log π_ref, or ``None`` when β = 0.
        advantages_C: advantage A of each completion of the step on this rank.
        weights_C: :func:`token_weights` of the same completions.
        completion_T: index into C of the completion that each token belongs to.
        objective: options of the loss.
    """
    advantages_T, weights_T = advantages_C[completion_T], weights_C[completion_T]
    ratio_T = log_ratio(logprobs_T, old_logprobs_T, completion_T, objective.importance).exp()
    clipped_ratio_T = ratio_T.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    surrogate_T, clipped_T = ratio_T * advantages_T, clipped_ratio_T * advantages_T
    loss = -(weights_T * torch.minimum(surrogate_T, clipped_T)).sum()
    kl = loss.new_zeros(())
    if ref_logprobs_T is not None:
        kl_T = kl_divergence(logprobs_T, ref_logprobs_T, objective.kl)
        loss = loss + objective.beta * (weights_T * kl_T).sum()
        kl = kl_T.detach().sum()
    return LossTerms(loss=loss, kl=kl, clipped=(clipped_T < surrogate_T).sum())
