"""Guard of the weights: an update is skipped if a number of its step is not finite, and training stops if many are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.nn import Parameter

from grit_lightning.errors import ConfigError, NotFiniteError
from grit_lightning.model.finite import first_not_finite, largest

log = logging.getLogger(__name__)

Named = Sequence[tuple[str, Parameter]]


class UpdateGuard:
    """Decides on all ranks alike whether the update of a step is applied.

    Args:
        max_skipped: number of skipped updates in a row after which training stops.

    Attributes:
        in_a_row: number of updates skipped since the last one that was applied.

    Raises:
        ConfigError: ``max_skipped`` is below 1.
    """

    def __init__(self, max_skipped: int) -> None:
        if max_skipped < 1:
            raise ConfigError(f"module.max_skipped is {max_skipped}, expected a whole number of at least 1")
        self.max_skipped = max_skipped
        self.in_a_row = 0

    def allows(self, step: int, values: Mapping[str, Tensor], norm: Tensor, named: Named, strategy: Strategy) -> bool:
        """Tell whether everything is finite; otherwise count and log the skipped update. Collective.

        Args:
            step: number of the training step, from 1.
            values: what the loss was computed from and the loss itself on this rank, by the name to log.
            norm: norm of the whole gradient.
            named: names and values of the trained parameters, with their gradients.
            strategy: the trainer's strategy.

        Raises:
            NotFiniteError: it is the ``max_skipped``-th skipped update in a row. The weights are those of the last
                applied update.
        """
        if _agreed([*values.values(), norm], strategy):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        culprit = first_not_finite([*values.items(), *_gradients(named)]) or "a value of another process"
        if self.in_a_row >= self.max_skipped:
            times = "" if self.in_a_row == 1 else f" in {self.in_a_row} steps in a row"
            raise NotFiniteError(
                f"training stopped at step {step}: {culprit} is not finite{times}; the weights are those before it "
                "(a smaller optimizer.lr helps most often)"
            )
        log.warning("step %d: the update is skipped, because %s is not finite", step, culprit)
        return False


def require_finite_weights(step: int, named: Named, strategy: Strategy) -> None:
    """Check the weights after an update, before anything is saved. Collective.

    Raises:
        NotFiniteError: a weight is not finite.
    """
    if not _agreed([largest(value for _, value in named)], strategy):
        name = first_not_finite(named) or "a weight of another process"
        raise NotFiniteError(
            f"training stopped at step {step}: its update made {name} infinite or NaN, so it is not saved "
            "(a smaller optimizer.lr helps most often)"
        )


def _gradients(named: Named) -> Iterable[tuple[str, Tensor]]:
    return ((f"the gradient of {name}", value.grad) for name, value in named if value.grad is not None)


def _agreed(values: Sequence[Tensor], strategy: Strategy) -> bool:
    """Tell whether all values are finite on all ranks; the device is waited for once."""
    bad = torch.stack([~value.detach().isfinite().all() for value in values]).any()
    worst: Tensor = strategy.reduce(bad.float(), reduce_op="max")
    return worst.item() == 0.0
