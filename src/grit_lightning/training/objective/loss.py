"""The loss of group-relative policy optimization: pure functions of log-probabilities, rewards and counts.

For a prompt q, completions o_1..o_G sampled from π_old with rewards r_1..r_G, the loss of one optimizer step is

    L(θ) = Σ_i Σ_t  w_it · ( −min(ρ_it A_i, clip(ρ_it, 1−ε_low, 1+ε_high) A_i) + β · KL_it )

- advantage  A_i = (r_i − mean r) / (std r + 1e-4)                      GRPO, arXiv 2402.03300 §4.1.2
- ratio      ρ_it = π_θ(o_it | q, o_i<t) / π_old(…)                     per token: GRPO eq. 3
             s_i  = (π_θ(o_i | q) / π_old(o_i | q))^(1/|o_i|)           per sequence: GSPO, arXiv 2507.18071 eq. 7
- clip       ε_low ≠ ε_high: "clip-higher", DAPO, arXiv 2503.14476 §3.1
- weights w: see :func:`token_weights`
- KL:        see :func:`kl_divergence`
- engine:    with another engine than the policy, the policy term has a further weight; see :mod:`.engine_correction`

Every term is a sum over tokens, with weights computed from counts of the whole step over all ranks. Every split of the
tokens into micro-batches, and every distribution of groups over ranks, adds up to the same loss and the same gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grit_lightning.training.objective.options import Importance, KLEstimator, Normalization, Objective


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
    lengths_C = torch.bincount(completion_T)
    return (sum_by_completion(log_ratio_T, completion_T) / lengths_C.clamp(min=1))[completion_T]


def sum_by_completion(values_T: Tensor, completion_T: Tensor) -> Tensor:
    """Return the sum over each completion's tokens, shape (C,). There is at least one token.

    Args:
        values_T: a value of each token.
        completion_T: index of the completion that each token belongs to.
    """
    return values_T.new_zeros(int(completion_T.max()) + 1).index_add(0, completion_T, values_T)


def policy_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    ref_logprobs_T: Tensor | None,
    *,
    advantages_C: Tensor,
    weights_C: Tensor,
    completion_T: Tensor,
    objective: Objective,
    engine_weights_T: Tensor | None = None,
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
        engine_weights_T: :func:`~.engine_correction.engine_weights`, which multiply the policy term and not the KL
            term, as in TRL; ``None`` where the policy itself sampled.
    """
    advantages_T, weights_T = advantages_C[completion_T], weights_C[completion_T]
    ratio_T = log_ratio(logprobs_T, old_logprobs_T, completion_T, objective.importance).exp()
    clipped_ratio_T = ratio_T.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    surrogate_T, clipped_T = ratio_T * advantages_T, clipped_ratio_T * advantages_T
    policy_weights_T = weights_T if engine_weights_T is None else weights_T * engine_weights_T
    loss = -(policy_weights_T * torch.minimum(surrogate_T, clipped_T)).sum()
    kl = loss.new_zeros(())
    if ref_logprobs_T is not None:
        kl_T = kl_divergence(logprobs_T, ref_logprobs_T, objective.kl)
        loss = loss + objective.beta * (weights_T * kl_T).sum()
        kl = kl_T.detach().sum()
    return LossTerms(loss=loss, kl=kl, clipped=(clipped_T < surrogate_T).sum())
