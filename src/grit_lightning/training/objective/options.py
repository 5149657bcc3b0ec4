"""Options of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grit_lightning.errors import ConfigError

Normalization = Literal["grpo", "dr_grpo", "dapo"]
Importance = Literal["token", "sequence"]
KLEstimator = Literal["k1", "k2", "k3"]
AdvantageScale = Literal["group", "batch", "none"]
EngineCorrection = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "none"]


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
        engine_correction: how the policy term is weighted for an engine that samples with slightly other probabilities;
            see :mod:`.engine_correction`. Without effect for the built-in engine, whose probabilities are the policy's.
        engine_cap: C > 0, the largest such weight.

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
    engine_correction: EngineCorrection = "token_truncate"  # configs of earlier versions lack both
    engine_cap: float = 2.0

    def __post_init__(self) -> None:
        for key in ("clip_low", "clip_high", "beta"):
            if getattr(self, key) < 0:
                raise ConfigError(f"objective.{key} is {getattr(self, key)}, expected a number of at least 0")
        if not self.engine_cap > 0:
            raise ConfigError(f"objective.engine_cap is {self.engine_cap}, expected a number above 0")
        if self.iterations < 1:
            raise ConfigError(f"objective.iterations is {self.iterations}, expected a whole number of at least 1")
