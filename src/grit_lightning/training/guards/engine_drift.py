"""The engine's log-probabilities beside the policy's: the correction, its metrics, and a stop if they drift apart.

Kernels and rounding make both differ a little. Engine weights that are not those of the policy make them differ more:
a missed update must end the run, not train it on completions of an old policy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from grit_lightning.errors import StaleEngineError
from grit_lightning.model.packing import PackedBatch
from grit_lightning.rollout.engine import Engine
from grit_lightning.training.objective.engine_correction import engine_ratio, engine_weights
from grit_lightning.training.objective.group_advantages import wide_dtype
from grit_lightning.training.objective.options import Objective
from grit_lightning.types import Group

_SUMS = ("tokens", "absolute", "ratio", "kl", "bounded")


class EngineDrift:
    """Log-probabilities of one step's completions under the engine that sampled them, on one rank.

    Args:
        groups: the groups of this rank, whose completions all have ``logprobs``.
        objective: options of the loss.
        max_drift: largest mean |log π − log π_engine| over the tokens of a step.
        device: the device of the step.
    """

    def __init__(self, groups: Sequence[Group], objective: Objective, max_drift: float, device: torch.device) -> None:
        logprobs = [value for group in groups for one in group.completions for value in one.logprobs or ()]
        self._engine_logprobs = torch.tensor(logprobs, dtype=torch.float32, device=device)
        self._objective, self._max_drift = objective, max_drift
        self._sums = torch.zeros(len(_SUMS), dtype=wide_dtype(device), device=device)
        self._largest = torch.zeros((), device=device)
        self._values: dict[str, float] = {}

    @classmethod
    def of(
        cls, engine: Engine, groups: Sequence[Group], objective: Objective, device: torch.device
    ) -> EngineDrift | None:
        """Return the drift of an engine that reports log-probabilities; ``None`` for the policy itself."""
        return None if engine.max_drift is None else cls(groups, objective, engine.max_drift, device)

    def weights(self, packed: PackedBatch, old_logprobs_T: Tensor) -> Tensor:
        """Return the weight of each token's policy term, shape (T,).

        Args:
            packed: the micro-batch.
            old_logprobs_T: log π_old of its tokens, without gradient.
        """
        return self._ratio_and_weights(packed, old_logprobs_T)[1]

    def add(self, packed: PackedBatch, old_logprobs_T: Tensor) -> None:
        """Add the tokens of a micro-batch of the first iteration to the sums."""
        if not old_logprobs_T.numel():
            return
        ratio_T, weight_T = self._ratio_and_weights(packed, old_logprobs_T)
        difference_T = old_logprobs_T - self._engine_logprobs[packed.token_T]
        self._sums += torch.stack(
            [
                torch.ones_like(difference_T).sum(),
                difference_T.abs().sum(),
                ratio_T.sum(),
                (difference_T.expm1() - difference_T).sum(),
                (weight_T != ratio_T).sum() if self._objective.engine_correction != "none" else ratio_T.new_zeros(()),
            ]
        )
        self._largest = torch.maximum(self._largest, ratio_T.max())

    def check(self, step: int, strategy: Strategy) -> None:
        """Compare the mean difference of all ranks with its bound. All ranks decide alike.

        Raises:
            StaleEngineError: the difference is too large.
        """
        sums = dict(zip(_SUMS, strategy.reduce(self._sums, reduce_op="sum").tolist(), strict=True))
        largest = float(strategy.reduce(self._largest, reduce_op="max"))
        count = max(sums["tokens"], 1.0)
        drift = sums["absolute"] / count
        if drift > self._max_drift:  # not if it is NaN: the guard of updates then says which number is
            raise StaleEngineError(
                f"step {step}: the engine's log-probabilities differ from the policy's by {drift:.2g} on average, more "
                f"than rollout.engine.max_drift={self._max_drift:g}: it samples from other weights, and nothing was "
                "learned from them"
            )
        if sums["tokens"]:
            self._values = {
                "rollout/engine_drift": drift,
                "rollout/engine_ratio": sums["ratio"] / count,
                "rollout/engine_ratio_max": largest,
                "rollout/engine_kl": sums["kl"] / count,
                "rollout/engine_bounded": sums["bounded"] / count,
            }

    def metrics(self) -> dict[str, float]:
        """Return what :meth:`check` found over all ranks.

        - ``engine_drift``: mean |log π − log π_engine|;
        - ``engine_ratio``, ``engine_ratio_max``: mean and maximum of the unbounded ratio;
        - ``engine_kl``: KL(π_engine ‖ π) per token, estimated by k3 on the engine's own samples;
        - ``engine_bounded``: share of tokens whose weight was truncated or masked.
        """
        return self._values

    def _ratio_and_weights(self, packed: PackedBatch, old_logprobs_T: Tensor) -> tuple[Tensor, Tensor]:
        kind, cap = self._objective.engine_correction, self._objective.engine_cap
        ratio_T = engine_ratio(old_logprobs_T, self._engine_logprobs[packed.token_T], packed.completion_T, kind)
        return ratio_T, engine_weights(ratio_T, kind, cap)
