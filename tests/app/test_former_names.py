"""Tests of the translation of class names in configs of earlier versions."""

from __future__ import annotations

import pytest
from hydra.utils import get_object

from grit_lightning.app.former_names import FORMER_TARGETS, with_todays_names


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
