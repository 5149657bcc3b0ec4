"""Tests of the options of held-out answers during training."""

import pytest

from grit_lightning.errors import ConfigError
from support.predicted import during_training


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [("before_and_after", -1, 0), ("every_n_steps", 0, 1), ("max_samples", 0, 1), ("patience", 0, 1)],
)
def test_a_number_that_is_too_small_is_refused(key, value, least):
    message = rf"^evaluation\.during_training\.{key} is {value}, expected at least {least}, or null$"
    with pytest.raises(ConfigError, match=message):
        during_training(**{key: value})


def test_zero_answers_before_and_after_and_null_are_accepted():
    assert during_training(before_and_after=0, every_n_steps=None).before_and_after == 0
