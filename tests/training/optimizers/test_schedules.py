"""Tests of the piecewise linear schedule: its values, and the points that it refuses."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.errors import ConfigError
from grit_lightning.training.optimizers.schedules import piecewise_linear


def rates(steps: int, points: list[list[float]]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = piecewise_linear(optimizer, points=points)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_schedule_follows_lines_between_the_points_and_a_jump() -> None:
    points = [[1, 0.0], [3, 1.0], [5, 0.5], [5, 0.8], [7, 0.0]]
    assert rates(9, points) == pytest.approx([0, 0, 1, 2, 1.5, 1.6, 0.8, 0, 0])


def test_a_schedule_of_one_point_is_a_constant() -> None:
    assert rates(3, [[10, 0.5]]) == [1, 1, 1]


@pytest.mark.parametrize("points", [[], [[5, 1.0], [4, 0.0]]])
def test_steps_that_do_not_ascend_are_refused(points: list[list[float]]) -> None:
    with pytest.raises(ConfigError, match="in ascending order"):
        rates(1, points)


def test_the_piecewise_linear_config_builds_a_schedule(compose_config) -> None:
    schedule = instantiate(compose_config("scheduler=piecewise_linear").scheduler)
    assert schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)).get_last_lr() == [2.0]
