"""Learning-rate schedules that transformers does not have."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from grit_lightning.errors import ConfigError


def piecewise_linear(optimizer: Optimizer, *, points: Sequence[Sequence[float]]) -> LambdaLR:
    """Straight lines between ``(step, factor)`` points, in ascending order of steps; constant before and after them.

    Args:
        optimizer: whose learning rates are multiplied by the factor.
        points: at least one. Two of the same step make a jump: the second holds from that step on.

    Raises:
        ConfigError: no points, or steps that do not ascend.
    """
    steps = [step for step, _ in points]
    if not steps or steps != sorted(steps):
        raise ConfigError(f"scheduler.points has the steps {steps}; expected at least one, in ascending order")

    def factor(step: int) -> float:
        after = bisect_right(steps, step)
        if after == 0:
            return points[0][1]
        if after == len(points):
            return points[-1][1]
        (start, low), (end, high) = points[after - 1], points[after]
        return low + (high - low) * (step - start) / (end - start)

    return LambdaLR(optimizer, factor)
