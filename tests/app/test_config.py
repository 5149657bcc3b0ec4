"""Tests of the config checks: every file of ``conf/`` fits the code it names; a wrong key or value is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app import config
from grit_lightning.errors import ConfigError
from grit_lightning.system.paths import conf_dir

Compose = Callable[..., DictConfig]


RECIPES = ("experiment", "debug")


MUST_BE_GIVEN = (
    "data.root", "model.checkpoint", "task.checkpoint", "task.format", "task.files", "judge.model",
    "judge.endpoint.url", "judge.endpoint.deployment",
)  # fmt: skip


CONFIGS = sorted(path.relative_to(conf_dir()).with_suffix("") for path in conf_dir().glob("*/*.yaml"))


def override(path: Path) -> str:
    return f"{'+' if path.parent.name in RECIPES else ''}{path.parent.name}={path.name}"


@pytest.mark.parametrize("choice", [override(path) for path in CONFIGS])
def test_every_config_composes_and_binds_to_what_it_names(compose_config: Compose, choice: str) -> None:
    of_task = ["task=bench"] if choice.startswith("suite=") else []  # no other task has suites
    cfg = compose_config(*of_task, choice)
    for key in OmegaConf.missing_keys(cfg):
        assert key in MUST_BE_GIVEN, "all else has a default"
        OmegaConf.update(cfg, key, "given")
    values = config.check(cfg)
    assert all(values[group] for group in ("model", "data", "reward", "module", "trainer", "task"))


@pytest.mark.parametrize("recipe", [path for path in CONFIGS if path.parent.name in RECIPES], ids=str)
def test_a_recipe_says_its_command_and_sets_its_name(compose_config: Compose, recipe: Path) -> None:
    text = (conf_dir() / recipe.with_suffix(".yaml")).read_text()
    assert text.startswith("# @package _global_\n# python -m grit_lightning +")
    assert override(recipe) in text.splitlines()[1].split()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert compose("config", [override(recipe)]).name == ("debug" if "debug" in str(recipe) else recipe.name)


def test_the_bare_command_is_the_tiny_experiment() -> None:
    def raw(*overrides: str) -> dict[str, object]:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            values = OmegaConf.to_container(compose("config", list(overrides)), resolve=False)
        return {key: value for key, value in values.items() if key != "name"}

    config.register()
    assert raw() == raw("+experiment=tiny")
    assert raw() != raw("+debug=fast")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "data.colour",
            "red",
            "data.colour is unknown: grit_lightning.data.GroundedQADataModule takes ",
        ),
        ("colour", "red", "colour is unknown: the top-level keys are "),
        ("callbacks.progress.colour", 1, "callbacks.progress.colour is unknown"),
        ("trainer.max_steps", "many", "trainer.max_steps is 'many', expected int"),
        ("trainer.max_steps", 1.5, "trainer.max_steps is 1.5, expected int"),
        ("rollout.temperature", "hot", "rollout.temperature is 'hot', expected float"),
        ("objective.kl", "k4", "objective.kl is 'k4', expected k1 | k2 | k3"),
        ("data.val", 3, "data.val is 3, expected str or Sequence or null"),
        ("objective.mask_truncated", 1, "objective.mask_truncated is 1, expected bool"),
        ("optimizer._target_", "nowhere.Adam", "optimizer._target_ is 'nowhere.Adam', which cannot be imported"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence_that_begins_with_the_key(
    compose_config: Compose, key: str, value: object, message: str
) -> None:
    cfg = compose_config()
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(ConfigError) as error:
        config.check(cfg)
    assert str(error.value).startswith(message)


def test_a_key_that_is_missing_is_named(compose_config: Compose) -> None:
    with pytest.raises(ConfigError, match=r"^rollout\.top_p is missing: grit_lightning\.rollout\.Sampler needs it$"):
        config.check(compose_config("~rollout.top_p"))


def test_a_user_defined_group_may_hold_any_keys(compose_config: Compose) -> None:
    values = config.check(compose_config("+mine={width: 3}", "rollout.max_new_tokens=${mine.width}"))
    assert values["rollout"]["max_new_tokens"] == 3


def test_loggers_and_callbacks_can_be_removed(compose_config: Compose) -> None:
    values = config.check(compose_config("~logger", "~callbacks"))
    assert values["logger"] is None
    assert values["callbacks"] is None


@pytest.mark.parametrize(
    ("hint", "value", "admitted"),
    [
        (int, 3, True),
        (int, 3.0, False),
        (int, True, False),
        (int, "3", False),
        (float, 3, True),
        (float, True, False),
        (bool, True, True),
        (bool, 1, False),
        (str, "text", True),
        (str, None, False),
        (int | None, None, True),
        (int | None, "none", False),
        (Literal["a", 1], "a", True),
        (Literal["a", 1], "b", False),
        (list[int], [1], True),
        (tuple[float, float], [0.9, 0.99], True),
        (list[int], "1", False),
        (dict[str, int], {"a": 1}, True),
        (dict[str, int], [1], False),
        (Path, "folder", True),
        (Path, 3, False),
        (Any, 3, True),
        (Callable[..., int], {"_target_": "torch.optim.AdamW", "_partial_": True}, True),
        (int, {"_target_": "builtins.int"}, True),  # built from a node, which is checked by itself
        (Path, {"a": 1}, False),
    ],
)
def test_admits_accepts_only_values_of_the_annotated_type(hint: Any, value: object, admitted: bool) -> None:
    assert config.admits(hint, value) is admitted
