"""Overrides of the command line, and their application to the config of an existing run.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app.former_names import FORMER_KEYS, todays_config, todays_override
from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.paths import conf_dir

_ABSENT = object()

_KEYS_OF_THE_TASK = ("task", "run", "runs", "out", "resume", "allow_changed")
"""Top-level keys that tell a task what to do with a run. They are not applied to the run's own config."""


def given_overrides() -> list[str]:
    """Return the overrides that the command line gives for this job; an empty list outside a Hydra application."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def task_options(cfg: DictConfig) -> dict[str, Any]:
    """Return the options that the config passes to its task's function, by name."""
    return {str(key): value for key, value in cfg.task.items() if not str(key).startswith("_")}


def is_sweep() -> bool:
    """Tell whether this process runs one job of a ``--multirun`` sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def is_given(key: str) -> bool:
    """Tell whether the command line sets ``KEY=…``."""
    return any(override.startswith(f"{key}=") for override in given_overrides())


def is_default_output() -> bool:
    """Tell whether the command line leaves the output folder to its default, which may get the next free name."""
    return HydraConfig.initialized() and not is_given("out")


def chosen_options(*groups: str) -> list[str]:
    """Return the options that the command line chooses for these groups, in the order of ``groups``."""
    changes = OverridesParser.create().parse_overrides(given_overrides())
    chosen = {change.key_or_group: str(change.value()) for change in changes if not change.is_delete()}
    return [chosen[group].replace("/", "_") for group in groups if group in chosen]


def output_path(cfg: DictConfig) -> Path:
    """Return ``out`` as an absolute path; in a sweep, the folder of this job."""
    return Path(HydraConfig.get().runtime.output_dir if is_sweep() else cfg.out).expanduser().absolute()


def apply_overrides(config: DictConfig, changes: Sequence[str]) -> None:
    """Apply ``KEY=VALUE`` overrides to a composed config, in place.

    Raises:
        ConfigError: an override deletes a key, sweeps or chooses a group's option, or the config has no such key.
    """
    for change in OverridesParser.create().parse_overrides(list(changes)):
        key = change.key_or_group
        if change.is_delete() or change.is_sweep_override() or (conf_dir() / key).is_dir():
            raise ConfigError(f"{change.input_line} cannot be applied to a run that exists, expected KEY=VALUE")
        if not change.is_add() and OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
            now = f"; it is now {FORMER_KEYS[key]}" if key in FORMER_KEYS else ""
            raise ConfigError(f"{key} is unknown: the run's config has no such key{now}")
        OmegaConf.update(config, key, change.value(), force_add=True)


_PATH_KEYS = ("root", "checkpoint", "folder", "prompt", "adapter")
"""Names of config keys that may hold a path."""


def make_paths_absolute(config: Any) -> None:
    """Turn paths that exist relative to the working directory into absolute ones, in place.

    A run keeps its config, and may be continued from another directory.
    """
    if not isinstance(config, DictConfig):
        return
    for key in list(config):
        value = config._get_node(key)
        if isinstance(value, DictConfig):
            make_paths_absolute(value)
            continue
        text = value._value() if key in _PATH_KEYS and value is not None else None
        if isinstance(text, str) and "${" not in text and Path(text).expanduser().exists():
            config[key] = str(Path(text).expanduser().absolute())


def load_run_config(run: RunFolder) -> DictConfig:
    """Return a run's composed config with the overrides of its earlier resumes and with current import paths.

    Raises:
        CheckpointError: the run folder has no composed config.
    """
    if not run.composed_file.is_file():
        raise CheckpointError(f"{run.path}: its {run.composed_file.name} is missing, so the run's config is unknown.")
    written = OmegaConf.to_container(OmegaConf.load(run.composed_file), resolve=False)
    assert isinstance(written, dict)
    saved = OmegaConf.create(todays_config({str(key): value for key, value in written.items()}))
    apply_overrides(saved, [todays_override(one) for one in run.resume_overrides()])
    saved.out = str(run.path.absolute())  # the folder may have been moved
    return saved


def changed_run_config(cfg: DictConfig, run: RunFolder, overrides: Sequence[str]) -> DictConfig:
    """Return a run's config with the command line's overrides applied.

    Args:
        cfg: the config composed from the command line. A group that the command line chooses is taken from it whole.
        run: the run whose config is changed.
        overrides: the command line's overrides. Those of keys such as ``task``, ``run`` and ``out`` are ignored.

    Raises:
        ConfigError: an override cannot be applied to a composed config.
        CheckpointError: the run folder has no composed config.
    """
    saved = load_run_config(run)
    changes = [
        change
        for change in OverridesParser.create().parse_overrides(list(overrides))
        if change.key_or_group.partition(".")[0] not in _KEYS_OF_THE_TASK
    ]
    groups = {change.key_or_group for change in changes if (conf_dir() / change.key_or_group).is_dir()}
    values = []
    for change in changes:
        key, line = change.key_or_group, change.input_line
        if key not in groups:
            if key.partition(".")[0] not in groups:  # else the group taken from ``cfg`` already has it
                values.append(line)
        elif key in saved and not change.is_delete():
            saved[key] = cfg[key]
        else:
            raise ConfigError(f"{line} cannot be given with a run: the run has its own config")
    apply_overrides(saved, values)
    return saved
