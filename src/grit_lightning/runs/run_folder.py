"""The run folder, which contains a run's config, manifest, checkpoints, rollouts and logs.

==========================  ==========================================================================
``config.yaml``             the resolved config
``composed.yaml``           the config with unresolved interpolations, from which a resume starts
``manifest.json``           versions, hardware, seed, overrides, data hashes (``manifest``)
``resumes.jsonl``           one line for each resume of the run
``checkpoints/``            ``last.ckpt``, ``step_000050.ckpt``, ... (``checkpoints``)
``rollouts/``               ``step_000001.jsonl``, ... (``rollout_store``)
``eval/``                   answers to held-out questions and their metrics (``evaluation``)
``scores/``                 rollouts scored with other rewards (``rescoring``)
``plots/``                  plots of the training (``plots``)
``metrics/``, ...           output of the configured loggers
==========================  ==========================================================================

A run folder is never deleted, and never reused for another run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.runs.checkpoint_files import is_whole, newest_whole
from grit_lightning.system.files import append_line


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder, given by its path. Creating this object reads and writes nothing."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved config, YAML."""
        return self.path / "config.yaml"

    @property
    def composed_file(self) -> Path:
        """The config with unresolved interpolations, YAML: derived values then follow values that a resume changes."""
        return self.path / "composed.yaml"

    @property
    def manifest_file(self) -> Path:
        """The manifest, JSON. A folder that contains this file is a run."""
        return self.path / "manifest.json"

    @property
    def resumes_file(self) -> Path:
        """One JSON line for each resume of the run; absent before the first."""
        return self.path / "resumes.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of Lightning checkpoints."""
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        """The folder of rollouts, one file per step."""
        return self.path / "rollouts"

    @property
    def evaluation(self) -> Path:
        """The folder of predictions on held-out samples and their metrics."""
        return self.path / "eval"

    @property
    def scores(self) -> Path:
        """The folder of comparisons with other rewards, one subfolder each; absent before the first."""
        return self.path / "scores"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def metrics(self) -> Path:
        """The folder of the CSV logger: ``version_N/metrics.csv``, where N is the number of resumes so far."""
        return self.path / "metrics"

    @property
    def tensorboard(self) -> Path:
        """The folder of the TensorBoard logger's event files."""
        return self.path / "tensorboard"

    def last_checkpoint(self) -> Path:
        """Return the newest readable checkpoint: ``last.ckpt``, or that of the highest step if it cannot be read.

        Raises:
            CheckpointError: the folder is not a run, or has no readable checkpoint.
        """
        _check_is_run(self)
        return newest_whole(self.checkpoints)

    def resume_overrides(self) -> list[str]:
        """Return the overrides of earlier resumes in order, so that a run that was once extended stays extended."""
        if not self.resumes_file.exists():
            return []
        lines = self.resumes_file.read_text(encoding="utf-8").splitlines()
        return [override for line in lines for override in json.loads(line)["overrides"]]

    def append_resume(self, checkpoint: Path, step: int, overrides: Sequence[str]) -> None:
        """Record a resume of the run in ``resumes.jsonl``.

        Args:
            checkpoint: checkpoint from which the run continues.
            step: number of optimizer steps completed in that checkpoint.
            overrides: command-line overrides of the resume.
        """
        entry = {
            "time": _now(),
            "checkpoint": checkpoint.name,
            "step": step,
            "overrides": list(overrides),  # verbatim: later resumes apply them again (``resume_overrides``)
        }
        append_line(self.resumes_file, json.dumps(entry, allow_nan=False))


def create(path: Path | str, *, composed_yaml: str, config_yaml: str, manifest: Mapping[str, Any]) -> RunFolder:
    """Create a run folder, or turn an existing folder without a run into one. Call it on one process only.

    Args:
        path: path of the run folder.
        composed_yaml: content of ``composed.yaml``.
        config_yaml: content of ``config.yaml``.
        manifest: content of ``manifest.json`` (``manifest.manifest``).

    Raises:
        ConfigError: the folder already contains a run, or cannot be written.
    """
    run = RunFolder(Path(path))
    content = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        for taken in (run.config_file, run.composed_file):
            if taken.exists() and not run.manifest_file.exists():
                raise ConfigError(f"out={run.path} cannot be the run folder: {taken} is in the way.")
        # Mode "x": if two processes use the same folder, one of them fails here instead of mixing two runs.
        with run.manifest_file.open("x", encoding="utf-8") as file:
            file.write(content)
        with run.config_file.open("x", encoding="utf-8") as file:
            file.write(config_yaml)
        with run.composed_file.open("x", encoding="utf-8") as file:
            file.write(composed_yaml)
        run.checkpoints.mkdir(exist_ok=True)
        run.rollouts.mkdir(exist_ok=True)
    except FileExistsError as error:
        if error.filename == str(run.manifest_file):
            message = f"{run.path} already holds a run: continue it with resume={run.path} or choose another out=…."
        else:
            message = f"out={run.path} cannot be the run folder: {error.filename} is in the way."
        raise ConfigError(message) from error
    except OSError as error:
        raise ConfigError(f"out={run.path} cannot be the run folder: {error.strerror} ({error.filename}).") from error
    return run


def open_run(path: Path | str) -> RunFolder:
    """Return an existing run.

    Raises:
        CheckpointError: the folder does not exist, or contains no run.
    """
    run = RunFolder(Path(path))
    _check_is_run(run)
    return run


def open_checkpoint(path: Path) -> tuple[RunFolder, Path]:
    """Return a run and one of its checkpoints.

    Args:
        path: a run folder, to get its newest readable checkpoint, or a checkpoint file in a run's ``checkpoints/``.

    Raises:
        CheckpointError: ``path`` is neither, or there is no readable checkpoint.
    """
    if not path.is_file():
        run = open_run(path)
        return run, run.last_checkpoint()
    run = open_run(path.parent.parent)
    if path.parent != run.checkpoints or not is_whole(path):
        raise CheckpointError(f"{path} is not a readable checkpoint of the run {run.path}.")
    return run, path


def _check_is_run(run: RunFolder) -> None:
    if not run.path.is_dir():
        raise CheckpointError(f"{run.path} is not a folder.")
    if not run.manifest_file.is_file():
        raise CheckpointError(f"{run.path} is not a run folder: it has no {run.manifest_file.name}.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
