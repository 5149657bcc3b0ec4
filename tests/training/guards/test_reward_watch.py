"""Tests of the watch over rewards that fail for every completion."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from grit_lightning.errors import RewardError
from grit_lightning.training.guards.reward_watch import RewardWatch
from grit_lightning.types import Score


def score(*failed: str) -> Score:
    names = ("length", "format")
    return Score({name: None if name in failed else 1.0 for name in names}, None, {name: f"{name}!" for name in failed})


def strategy(other: list[float] | None = None) -> SimpleNamespace:
    """One process, or one of two whose counts are ``other``."""

    def reduce(values: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        return values + torch.tensor(other or [0.0] * len(values), dtype=values.dtype)

    return SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)


ALL, SOME, NONE = [[score("length")] * 2], [[score("length"), score()]], [[score()] * 2]


def test_the_third_step_in_a_row_without_any_score_stops_training():
    watch = RewardWatch()
    watch.step(ALL, strategy())
    watch.step(ALL, strategy())
    message = (
        r"^training stopped: reward length failed for every completion in 3 steps in a row; the last reason: length!$"
    )
    with pytest.raises(RewardError, match=message):
        watch.step(ALL, strategy())


@pytest.mark.parametrize("between", [SOME, NONE])
def test_a_step_in_which_one_completion_was_scored_begins_the_count_again(between):
    watch = RewardWatch()
    for scores in (ALL, ALL, between, ALL, ALL):
        watch.step(scores, strategy())


def test_each_reward_is_counted_by_itself():
    watch = RewardWatch()
    for scores in (ALL, ALL, [[score("format")] * 2], [[score("format")] * 2]):
        watch.step(scores, strategy())


def test_processes_count_together():
    watch = RewardWatch()
    for _ in range(5):
        watch.step(ALL, strategy(other=[2.0, 1.0, 0.0]))  # the other process scored one of its two
    with pytest.raises(RewardError):
        for _ in range(3):
            watch.step(ALL, strategy(other=[2.0, 2.0, 0.0]))
