"""The run folder, which contains a run's config, manifest, checkpoints, rollouts and logs.

==========================  ==========================================================================
``config.yaml``             the resolved config
``composed.yaml``           the config with unresolved interpolations, from which a resume starts
``manifest.json``           versions, hardware, seed, overrides, data hashes (``manifest``)
``inputs.json``             data, prompt, reward and judge that the run was started with (``inputs``)
``resumes.jsonl``           one line for each resume of the run
``results.json``            metrics of a run that has finished (``results``)
``checkpoints/``            ``last.ckpt``, ``step_000050.ckpt``, ... (``checkpoints``)
``rollouts/``               ``step_000001.jsonl``, ... (``rollout_store``)
``eval/``                   answers to held-out questions and their metrics (``evaluation``)
``scores/``                 rollouts scored with other rewards (``rescoring``)
``plots/``                  plots of the training (``plots``)
``report.html``             the page about the run (``report``)
``metrics/``, ...           output of the configured loggers
==========================  ==========================================================================

A run folder is never deleted, and never reused for another run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from grit_lightning.errors import CheckpointError
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
    def before_file(self) -> Path:
        """Predictions on held-out samples before the first step."""
        return self.evaluation / "before.jsonl"

    @property
    def after_file(self) -> Path:
        """Predictions on held-out samples after the last step."""
        return self.evaluation / "after.jsonl"

    @property
    def before_and_after_file(self) -> Path:
        """Metrics of both, JSON."""
        return self.evaluation / "metrics.json"

    @property
    def results_file(self) -> Path:
        """The results of a run that has finished, JSON; absent while it has steps to take or questions to answer."""
        return self.path / "results.json"

    @property
    def inputs_file(self) -> Path:
        """Data, prompt, reward and judge of the run, JSON, which a resume compares (``runs.inputs``)."""
        return self.path / "inputs.json"

    @property
    def lock_file(self) -> Path:
        """The lock that a training process holds while it works in the folder."""
        return self.path / ".lock"

    @property
    def scores(self) -> Path:
        """The folder of comparisons with other rewards, one subfolder each; absent before the first."""
        return self.path / "scores"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def report_file(self) -> Path:
        """The page about the run, HTML."""
        return self.path / "report.html"

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

    def append_resume(
        self, checkpoint: Path | None, step: int, overrides: Sequence[str], changed: Sequence[str] = ()
    ) -> None:
        """Record a resume of the run in ``resumes.jsonl``.

        Args:
            checkpoint: checkpoint from which the run continues; ``None`` if it begins again.
            step: number of optimizer steps completed in that checkpoint.
            overrides: command-line overrides of the resume.
            changed: a sentence for each input that differs from before, as was allowed (``inputs``).
        """
        entry = {
            "time": _now(),
            "checkpoint": None if checkpoint is None else checkpoint.name,
            "step": step,
            "overrides": list(overrides),  # verbatim: later resumes apply them again (``resume_overrides``)
            "changed": list(changed),
        }
        append_line(self.resumes_file, json.dumps(entry, allow_nan=False))


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
