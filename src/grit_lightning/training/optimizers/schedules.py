"""Learning-rate schedules that torch lacks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from grit_lightning.errors import ConfigError


def piecewise_linear(optimizer: Optimizer, *, points: Sequence[Sequence[float]]) -> LambdaLR:
    """Return a schedule that multiplies learning rates by a factor interpolated linearly between points.

    The factor is constant before the first and after the last point.

    Args:
        optimizer: the optimizer whose learning rates are scaled.
        points: ``(step, factor)`` pairs, at least one, in ascending order of steps. Two points at the same step make
            the factor jump: the second point applies from that step on.

    Raises:
        ConfigError: there are no points, or the steps are not in ascending order.
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
