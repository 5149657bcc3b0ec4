"""What tasks about a run that exists share: its config with the command line's changes, and a folder to write to.

Nothing here imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app import config
from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.runs.run_folder import RunFolder

_OF_THE_TASK = ("task", "ckpt", "rollouts", "predictions", "runs", "out")


def run_config(cfg: DictConfig, run: RunFolder, overrides: list[str]) -> DictConfig:
    """The run's own config with the command line's changes: values, and whole groups as ``cfg`` has composed them.

    Raises:
        ConfigError: a change that a config cannot take which is composed already.
        CheckpointError: the run's config is not there.
    """
    if not run.composed_file.is_file():
        raise CheckpointError(f"{run.path}: its {run.composed_file.name} is missing, so its config is not known.")
    saved = OmegaConf.load(run.composed_file)
    assert isinstance(saved, DictConfig)
    config.apply(saved, run.resume_overrides())
    changes = [
        change
        for change in OverridesParser.create().parse_overrides(overrides)
        if change.key_or_group.partition(".")[0] not in _OF_THE_TASK
    ]
    groups = {change.key_or_group for change in changes if (config.conf_dir() / change.key_or_group).is_dir()}
    values = []
    for change in changes:
        key, line = change.key_or_group, change.input_line
        if key not in groups:
            if key.partition(".")[0] not in groups:  # else ``cfg`` has it in the group already
                values.append(line)
        elif key in saved and not change.is_delete():
            saved[key] = cfg[key]
        else:
            raise ConfigError(f"{line} cannot be given with a run: it has a config of its own")
    config.apply(saved, values)
    saved.out = str(run.path)  # the folder may have been moved
    return saved


def is_given(key: str) -> bool:
    """Whether the command line says ``KEY=…``."""
    return any(override.startswith(f"{key}=") for override in config.overrides())


def free(folder: Path) -> Path:
    """``folder``, or ``…_v2``, ``…_v3`` where it is taken."""
    candidate, version = folder, 1
    while candidate.exists():
        version += 1
        candidate = folder.with_name(f"{folder.name}_v{version}")
    return candidate


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds something, or that lies where none can be made, before the work is done."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"out={folder} is taken: choose another out=…")
    taken = next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None)
    if taken is not None:
        raise ConfigError(f"out={folder} cannot be made: {taken} is in the way")


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before the work is done."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder} cannot be written: {there} is read-only; give another folder as out=…")


def choices(*groups: str) -> list[str]:
    """The options that the command line chose for these groups, in the order of the groups."""
    changes = OverridesParser.create().parse_overrides(config.overrides())
    chosen = {change.key_or_group: str(change.value()) for change in changes if not change.is_delete()}
    return [chosen[group].replace("/", "_") for group in groups if group in chosen]
