"""Test that training optimises: on random weights, the reward for digits at least doubles within 40 steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from grit_lightning.tasks.train import train_policy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries; what this test is about is the curve
def test_the_share_of_digits_at_least_doubles(compose_config, tmp_path: Path) -> None:
    run = train_policy(
        compose_config(
            "reward=digits",
            "optimizer.lr=1e-3",
            "rollout.max_new_tokens=24",
            "data.prompts_per_step=2",
            "trainer.max_steps=40",
            "seed=0",
            "data.val=null",
            "trainer.accelerator=cpu",
            f"out={tmp_path / 'run'}",
        ),
        report=False,
    ).run
    events = EventAccumulator(str(run.tensorboard)).Reload()
    curve = [event.value for event in events.Scalars("reward/total/mean")]
    assert [event.step for event in events.Scalars("reward/total/mean")] == list(range(1, 41))
    start, end = sum(curve[:5]) / 5, sum(curve[-5:]) / 5
    assert start > 0
    assert end >= 2 * start, f"mean reward went from {start:.3f} to {end:.3f}"
