"""Tests of the translation of class names in configs of earlier versions."""

from __future__ import annotations

import pytest
from hydra.utils import get_object

from grit_lightning.app.former_names import FORMER_TARGETS, todays_override, with_todays_names


@pytest.mark.parametrize("name", FORMER_TARGETS.values())
def test_every_new_name_can_be_imported(name: str) -> None:
    assert callable(get_object(name))


def test_names_are_translated_at_every_depth_and_other_values_are_left() -> None:
    values = {
        "a": [{"_target_": "grit_lightning.checkpoints.StepCheckpoint", "x": 1}],
        "b": {"_target_": "torch.optim.AdamW", "lr": "${c}"},
    }
    assert with_todays_names(values) == {
        "a": [{"_target_": "grit_lightning.training.callbacks.StepCheckpoint", "x": 1}],
        "b": {"_target_": "torch.optim.AdamW", "lr": "${c}"},
    }


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("data.heldout=null", "data.val=null"),
        ("data.heldout.count=30", "data.val=[{shapes: 30}]"),
        ("callbacks.demonstration.max_samples=0", "evaluation.during_training.before_and_after=0"),
        ("callbacks.heldout.patience=3", "evaluation.during_training.patience=3"),
        ("ckpt=runs/a", "run=runs/a"),
        ("rollouts=runs/a=b", "run=runs/a=b"),
        ("+predictions=x", "+run=x"),
        ("task=evaluate", "task=evaluate"),
        ("--multirun", "--multirun"),
    ],
)
def test_an_override_of_an_earlier_version_reads_as_today(former: str, current: str) -> None:
    assert todays_override(former) == current
