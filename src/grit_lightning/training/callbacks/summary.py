"""Callback that prints a summary at the end of training: first and last step, and the paths of all outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from grit_lightning.runs.results import heldout_metrics
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.tables import text_table
from grit_lightning.training.step_metrics import reward_means

_SUMMARISED = {
    "KL": "policy/kl",
    "completion length": "rollout/length/mean",
    "truncated share": "rollout/truncated",
}
"""Metrics listed below the rewards: displayed name to logged name. The truncated share is between 0 and 1."""


class TrainingSummary(Callback):
    """Prints, when training ends or is interrupted, metrics of the first and last step and the paths of all outputs.

    The first step is the first of the whole run, also after a resume: its values are saved in checkpoints.

    Args:
        out: the run folder.
    """

    def __init__(self, *, out: str) -> None:
        self.run = RunFolder(Path(out))
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._step_began = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the first step's values, for the checkpoint."""
        return {"first": dict(self._first)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first step's values from a checkpoint."""
        self._first = dict(state_dict["first"])

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start timing the step."""
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Store this step's values as the last, and as the first if there are none yet."""
        seconds = time.perf_counter() - self._step_began
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self._last = {"step": trainer.global_step, **_rows(metrics), "seconds per step": seconds}
        self._first = self._first or self._last

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the summary."""
        self._print(trainer, f"Training ended at step {trainer.global_step}.")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Print the summary of the steps that were completed."""
        self._print(trainer, f"Training stopped after step {trainer.global_step} ({type(exception).__name__}).")

    def _print(self, trainer: pl.Trainer, headline: str) -> None:
        if trainer.is_global_zero and self._last:
            key = key_result(self.run, self._first, self._last)
            print(f"\n{headline}{key}\n\n{first_and_last(self._first, self._last)}\n\n{places(self.run)}", flush=True)


def key_result(run: RunFolder, first: Mapping[str, float], last: Mapping[str, float]) -> str:
    """Return the result to look at first, as an end of the headline: held-out accuracy, or else reward or loss."""
    metrics = heldout_metrics(run)
    after, before = metrics.get("heldout/accuracy"), heldout_metrics(run, "before").get("heldout/accuracy")
    if after is not None and before is not None:
        return f" Held-out accuracy: {before:.3f} before, {after:.3f} after."
    for name in ("reward", "loss"):
        if name in first and name in last:
            return f" {name.capitalize()}: {_number(first[name])} at first, {_number(last[name])} at last."
    return ""


def first_and_last(first: Mapping[str, float], last: Mapping[str, float]) -> str:
    """Return a table of two columns, headed by their steps. A missing value is a dash.

    Args:
        first: values of the first step by displayed name, and the step's number under ``step``.
        last: the same for the last step.
    """
    names = [name for name in last if name != "step"]
    names += [name for name in first if name not in last]
    steps = [f"step {column['step']:.0f}" for column in (first, last)]
    rows = {name: [_number(first.get(name)), _number(last.get(name))] for name in names}
    return text_table(steps, rows, width=12)


def places(run: RunFolder) -> str:
    """Return the paths of the run's outputs, one per line; empty or missing folders are left out."""
    found = {
        "run folder": run.path,
        "checkpoints": run.checkpoints,
        "rollouts": run.rollouts,
        "metrics": run.metrics,
        "evaluation": run.evaluation,
        "plots": run.plots,
    }
    lines = [f"{name:<12} {path}" for name, path in found.items() if path.is_dir() and any(path.iterdir())]
    if run.tensorboard.is_dir():
        lines.append(f"{'curves':<12} tensorboard --logdir {run.tensorboard}")
    return "\n".join(lines)


def _rows(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the rows of the summary: total reward and its components, or the loss, then ``_SUMMARISED``."""
    rewards = reward_means(metrics)
    rows = {"reward": rewards.pop("total")} if "total" in rewards else {}
    if not rows and "policy/loss" in metrics:
        rows = {"loss": metrics["policy/loss"]}
    rows |= {f"  {name}": rewards[name] for name in sorted(rewards)}
    return rows | {name: metrics[key] for name, key in _SUMMARISED.items() if key in metrics}


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4g}"
