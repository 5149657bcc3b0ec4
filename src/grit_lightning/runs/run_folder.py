"""The run folder: where a run's config, manifest, checkpoints, rollouts and logs lie.

==========================  ==========================================================================
``config.yaml``             the resolved config
``composed.yaml``           the same before interpolations were resolved: what a resume starts from
``manifest.json``           versions, hardware, seed, overrides, data hashes (``manifest``)
``resumes.jsonl``           one line for each time the run was continued
``checkpoints/``            ``last.ckpt``, ``step_000050.ckpt``, ... (``checkpoints``)
``rollouts/``               ``step_000001.jsonl``, ... (``rollout_store``)
``eval/``                   answers to held-out questions, and what they are worth (``evaluation``)
``scores/``                 rollouts under other rewards (``rescoring``)
``plots/``                  pictures of the training (``plots``)
``metrics/``, ...           what the configured loggers write
==========================  ==========================================================================

A run folder is never deleted, and never taken for another run.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.system.files import append_line

LAST_CHECKPOINT = "last.ckpt"
"""Name of the newest checkpoint in ``RunFolder.checkpoints``."""

BEST_CHECKPOINT = "best.ckpt"
"""Name of the one that held-out samples were answered best with (``heldout``)."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder, by its path; nothing is read or written until asked for."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved config, YAML."""
        return self.path / "config.yaml"

    @property
    def composed_file(self) -> Path:
        """The config with its interpolations, so that what is derived follows a value that a resume changes; YAML."""
        return self.path / "composed.yaml"

    @property
    def manifest_file(self) -> Path:
        """What the run was started with, JSON. A folder with this file is a run."""
        return self.path / "manifest.json"

    @property
    def resumes_file(self) -> Path:
        """One JSON line for each time the run was continued; absent until then."""
        return self.path / "resumes.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of Lightning checkpoints."""
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        """The folder of rollouts, one file a step."""
        return self.path / "rollouts"

    @property
    def evaluation(self) -> Path:
        """The folder of predictions on held-out samples and their metrics."""
        return self.path / "eval"

    @property
    def scores(self) -> Path:
        """The folder of comparisons with other rewards, each in a folder of its own; absent until there is one."""
        return self.path / "scores"

    @property
    def plots(self) -> Path:
        """The folder of pictures for people."""
        return self.path / "plots"

    @property
    def metrics(self) -> Path:
        """The folder of the CSV logger: ``version_N/metrics.csv``, N = 0 for the start and one more for each resume."""
        return self.path / "metrics"

    @property
    def tensorboard(self) -> Path:
        """The folder of the TensorBoard logger's event files."""
        return self.path / "tensorboard"

    def last_checkpoint(self) -> Path:
        """The newest checkpoint that is whole: ``last.ckpt``, or the highest step where that one cannot be read.

        Raises:
            CheckpointError: this is no run, or no checkpoint of it can be used.
        """
        _check_is_run(self)
        steps = sorted(self.checkpoints.glob("step_*.ckpt"), reverse=True)
        written = [path for path in (self.checkpoints / LAST_CHECKPOINT, *steps) if path.exists()]
        for path in written:
            if _is_whole(path):
                return path
        if written:
            raise CheckpointError(f"{self.checkpoints}: none of the {len(written)} checkpoints here can be read.")
        raise CheckpointError(f"{self.path}: this run has no checkpoint yet.")

    def resume_overrides(self) -> list[str]:
        """The overrides of earlier resumes, in order: a run that was extended once stays extended."""
        if not self.resumes_file.exists():
            return []
        lines = self.resumes_file.read_text(encoding="utf-8").splitlines()
        return [override for line in lines for override in json.loads(line)["overrides"]]

    def append_resume(self, checkpoint: Path, step: int, overrides: Sequence[str]) -> None:
        """Note that the run is continued.

        Args:
            checkpoint: what it continues from.
            step: optimizer steps done in that checkpoint.
            overrides: command-line overrides of the process that continues it.
        """
        entry = {
            "time": _now(),
            "checkpoint": checkpoint.name,
            "step": step,
            "overrides": list(overrides),  # as given: they are applied again (``resume_overrides``)
        }
        append_line(self.resumes_file, json.dumps(entry, allow_nan=False))


def create(path: Path | str, *, composed_yaml: str, config_yaml: str, manifest: Mapping[str, Any]) -> RunFolder:
    """Make a run folder, or take an existing folder that holds no run. Call it on one process only.

    Raises:
        ConfigError: the folder holds a run already, or cannot be written.
    """
    run = RunFolder(Path(path))
    content = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        for taken in (run.config_file, run.composed_file):
            if taken.exists() and not run.manifest_file.exists():
                raise ConfigError(f"out={run.path} cannot be the run folder: {taken} is in the way.")
        # Mode "x": of two processes that were given the same folder, one fails here instead of mixing two runs.
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
    """An existing run.

    Raises:
        CheckpointError: there is no such folder, or it holds no run.
    """
    run = RunFolder(Path(path))
    _check_is_run(run)
    return run


def open_checkpoint(path: Path) -> tuple[RunFolder, Path]:
    """A run and one of its checkpoints: of a run folder its newest, else the file itself, which lies in the run's.

    Raises:
        CheckpointError: it is neither, or there is no checkpoint that can be read.
    """
    if not path.is_file():
        run = open_run(path)
        return run, run.last_checkpoint()
    run = open_run(path.parent.parent)
    if path.parent != run.checkpoints or not _is_whole(path):
        raise CheckpointError(f"{path} is not a checkpoint of the run {run.path} that can be read.")
    return run, path


def _check_is_run(run: RunFolder) -> None:
    if not run.path.is_dir():
        raise CheckpointError(f"{run.path} is not a folder.")
    if not run.manifest_file.is_file():
        raise CheckpointError(f"{run.path} is not a run folder: it has no {run.manifest_file.name}.")


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint file is complete. ``torch.save`` writes a zip archive, whose directory comes last."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
