"""Tests of overrides applied to the config of an existing run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from grit_lightning.app.overrides import apply_overrides
from grit_lightning.errors import ConfigError

Compose = Callable[..., DictConfig]


def test_derived_values_follow_an_override_on_resume(compose_config: Compose) -> None:
    cfg = compose_config()
    apply_overrides(cfg, ["trainer.max_steps=7", "+trainer.max_time='0:1'", "objective.beta=0.5", "resume=null"])
    assert cfg.scheduler.num_training_steps == 7
    assert cfg.trainer.max_time == "0:1"
    assert cfg.module.objective.beta == 0.5
    assert cfg.resume is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.max_step=7", "trainer.max_step is unknown: the run's config has no such key"),
        ("~callbacks", "~callbacks cannot be applied to a run that exists, expected KEY=VALUE"),
        ("seed=0,1", "seed=0,1 cannot be applied to a run that exists, expected KEY=VALUE"),
        ("objective=dapo", "objective=dapo cannot be applied to a run that exists, expected KEY=VALUE"),
    ],
)
def test_an_override_that_a_resume_refuses_changes_nothing(compose_config: Compose, change: str, message: str) -> None:
    cfg, untouched = compose_config("out=run"), compose_config("out=run")  # without the time in its name
    with pytest.raises(ConfigError) as error:
        apply_overrides(cfg, [change])
    assert str(error.value) == message
    assert cfg == untouched
