"""Stop training when a reward fails for every completion, step after step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.strategies import Strategy

from grit_lightning.errors import RewardError
from grit_lightning.training.objective.group_advantages import wide_dtype
from grit_lightning.types import Score

PATIENCE = 3
"""Steps in a row after which a reward that fails for every completion stops training, as ``judge.patience`` does."""


class RewardWatch:
    """Counts, for each reward, the steps in a row in which it raised an exception for every completion."""

    def __init__(self) -> None:
        self._bad_steps: dict[str, int] = {}

    def step(self, scores_P_G: Sequence[Sequence[Score]], strategy: Strategy) -> None:
        """Count this step's failures over all processes. Collective: every process calls it once per step.

        Raises:
            RewardError: raised on all processes when a reward has failed for every completion of :data:`PATIENCE` steps
                in a row. The weights are those of the last complete step.
        """
        scores = [score for scores_G in scores_P_G for score in scores_G]
        names = list(scores[0].components)
        counts = [len(scores), *(sum(name in score.errors for score in scores) for name in names)]
        own = torch.tensor(counts, dtype=wide_dtype(strategy.root_device), device=strategy.root_device)
        total, *failed = strategy.reduce(own, reduce_op="sum").tolist()
        for name, count in zip(names, failed, strict=True):
            self._bad_steps[name] = self._bad_steps.get(name, 0) + 1 if count == total else 0
            if self._bad_steps[name] >= PATIENCE:
                reason = next((score.errors[name] for score in scores if name in score.errors), "")
                raise RewardError(
                    f"training stopped: reward {name} failed for every completion in {PATIENCE} steps in a row; the "
                    f"last reason: {reason}"
                )
