"""Tests of the one-line messages about user errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from grit_lightning.app import config
from grit_lightning.app.error_lines import one_line
from grit_lightning.errors import ConfigError, DataError

Compose = Callable[..., DictConfig]


def test_a_value_without_a_default_says_how_to_give_it(compose_config: Compose) -> None:
    with pytest.raises(MissingMandatoryValue) as error:
        config.check(compose_config("data=grit"))
    assert one_line(error.value) == "data.root has no default: give data.root=VALUE"


def test_the_message_is_that_of_the_user_error_that_caused_the_error() -> None:
    error = InstantiationException("Error in call to target 'x':\nmany lines")
    error.__cause__ = RuntimeError("between")
    error.__cause__.__cause__ = ConfigError("rollout.top_p is 2,\n  expected at most 1")
    assert one_line(error) == "rollout.top_p is 2, expected at most 1"


def test_a_data_error_names_its_source_first() -> None:
    assert one_line(DataError("field 'answer' is null", "a.jsonl:3")) == "a.jsonl:3: field 'answer' is null"


def test_an_error_of_any_other_type_is_joined_to_one_line() -> None:
    assert one_line(ValueError("first\n  second")) == "first second"


@pytest.mark.parametrize("make", [ConfigError, lambda text: DataError(text, "a.jsonl:1"), ValueError])
def test_control_characters_are_escaped(make: Callable[[str], Exception]) -> None:
    assert one_line(make("it is '\x1b[2J\u202e\x07'")).endswith(r"it is '\x1b[2J\u202e\x07'")


def test_control_characters_in_a_file_name_are_escaped() -> None:
    assert one_line(DataError("is empty", "a\x1b[31m.jsonl:1")) == r"a\x1b[31m.jsonl:1: is empty"
