"""Tests of the Trainer's options that have no effect here."""

import inspect

import lightning
import pytest

from grit_lightning.app.trainer_options import _INSTEAD, refuse_without_effect
from grit_lightning.errors import ConfigError


@pytest.mark.parametrize("key", _INSTEAD)
def test_an_option_without_effect_is_refused_by_name_and_says_what_to_use(key):
    with pytest.raises(ConfigError, match=rf"^trainer\.{key} has no effect here: use \S+"):
        refuse_without_effect({"max_steps": 3, key: 1})


def test_every_option_of_the_table_is_one_of_lightning():
    assert set(_INSTEAD) <= set(inspect.signature(lightning.Trainer).parameters)


def test_the_shipped_config_and_unset_options_are_accepted(compose_config):
    refuse_without_effect(compose_config("+trainer.max_epochs=null").trainer)


def test_a_false_value_is_a_value():
    with pytest.raises(ConfigError, match=r"trainer\.inference_mode"):
        refuse_without_effect({"inference_mode": False})
