"""Scores of one group computed in the foreground, for comparison with background scoring."""

from __future__ import annotations

from grit_lightning.rewards import Rewards
from grit_lightning.types import Group, Score


def score_group(rewards: Rewards, group: Group) -> tuple[Score, ...]:
    return tuple(rewards.score(group.prompt.sample, completion) for completion in group.completions)
