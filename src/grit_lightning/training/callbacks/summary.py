"""What is left of a training run for people: its progress, its rollouts, and at its end what it did."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, ProgressBar
from tqdm import tqdm  # type: ignore[import-untyped]

from grit_lightning.errors import ConfigError
from grit_lightning.runs.rollout_store import RolloutStore, records
from grit_lightning.runs.run_folder import RunFolder

_SHOWN = {"reward": "reward/total/mean", "KL": "kl", "length": "length/mean", "tokens/s": "tokens_per_second"}
"""Metrics beside the progress bar: logged key by the name shown."""

_SUMMARISED = {"KL": "kl", "completion length": "length/mean", "truncated share": "truncated"}
"""Metrics in the summary below the rewards: logged key by the name shown. The truncated share is 0–1."""

_REWARD = re.compile(r"reward/(.+)/mean")
"""Logged keys of the rewards: the components by name, and ``total``."""


class StepProgressBar(ProgressBar):
    """One bar over all optimizer steps, which after a resume starts where the run stands.

    Where stderr is not a terminal (a log file, SLURM) it prints plain lines instead.

    Args:
        line_every_n_steps: optimizer steps between such lines; the first and the last step of a process have one too.
    """

    def __init__(self, *, line_every_n_steps: int) -> None:
        super().__init__()
        if line_every_n_steps < 1:
            raise ConfigError(f"callbacks.progress.line_every_n_steps is {line_every_n_steps}, expected at least 1")
        self.line_every_n_steps = line_every_n_steps
        self._enabled = True
        self._bar: tqdm | None = None
        self._start_time = 0.0
        self._start_step = 0

    @property
    def is_enabled(self) -> bool:
        """Whether this process shows progress: rank zero does."""
        return self._enabled

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._bar is None:
            print(*args, **kwargs)
        else:
            self._bar.write(kwargs.get("sep", " ").join(map(str, args)))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._start_time, self._start_step = time.monotonic(), trainer.global_step
        if self._enabled and sys.stderr.isatty():
            total = _total(trainer)
            self._bar = tqdm(desc="Training", total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show this step."""
        if not self._enabled:
            return
        metrics = trainer.callback_metrics
        shown = {name: metrics[key].item() for name, key in _SHOWN.items() if key in metrics}
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)
        elif self._is_line_due(trainer):
            print(self._line(trainer, shown), file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message begins on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _is_line_due(self, trainer: pl.Trainer) -> bool:
        step = trainer.global_step
        return step % self.line_every_n_steps == 0 or step in (self._start_step + 1, trainer.max_steps)

    def _line(self, trainer: pl.Trainer, shown: Mapping[str, float]) -> str:
        """Such as ``step 12/200  reward 1.25  KL 0.0031  length 310  tokens/s 950  4.1 s/step  0:12:51 left``."""
        total = _total(trainer)
        seconds = (time.monotonic() - self._start_time) / max(1, trainer.global_step - self._start_step)
        parts = [f"step {trainer.global_step}" + (f"/{total}" if total else "")]
        parts += [f"{name} {value:.3g}" for name, value in shown.items()]
        parts += [f"{seconds:.3g} s/step"]
        if total:
            parts += [f"{tqdm.format_interval(seconds * (total - trainer.global_step))} left"]
        return "  ".join(parts)


class RolloutWriter(Callback):
    """Stores each step's rollouts of all ranks (``rollout_store``), before the step's checkpoint is written.

    Args:
        out: the run folder.
    """

    def __init__(self, *, out: str) -> None:
        self.store = RolloutStore(RunFolder(Path(out)).rollouts)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        """Store what ``training_step`` returned under ``output``."""
        done = outputs["output"]
        step_records = records(done.step, done.groups, done.scores, done.advantages_P_G)
        if trainer.world_size > 1:
            of_ranks: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(of_ranks, step_records)
            step_records = [record for of_rank in of_ranks for record in of_rank]
        if trainer.is_global_zero:
            self.store.write(done.step, step_records)


class ResumeNote(Callback):
    """Notes in the run folder that it was continued, once that has come a step further.

    Not before: the overrides that are noted are applied again by later resumes, so one that fails must leave no trace.

    Args:
        run: the run folder.
        checkpoint: what the run continues from.
        step: optimizer steps done in it.
        overrides: command-line overrides of this process.
    """

    def __init__(self, run: RunFolder, checkpoint: Path, step: int, overrides: Sequence[str]) -> None:
        self._note = (checkpoint, step, overrides)
        self._run = run
        self._noted = False

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write the note after the first step."""
        if trainer.is_global_zero and not self._noted:
            self._run.append_resume(*self._note)
            self._noted = True


class TrainingSummary(Callback):
    """Prints, when training ends or is stopped, the run's first step against its last, and where everything lies.

    The first step is that of the whole run: it is kept in the checkpoint.

    Args:
        out: the run folder.
    """

    def __init__(self, *, out: str) -> None:
        self.run = RunFolder(Path(out))
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._step_began = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The first step's values."""
        return {"first": dict(self._first)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the first step's values."""
        self._first = dict(state_dict["first"])

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start the step's clock."""
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note this step's values."""
        seconds = time.perf_counter() - self._step_began
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self._last = {"step": trainer.global_step, **_rows(metrics), "seconds per step": seconds}
        self._first = self._first or self._last

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the summary."""
        self._print(trainer, f"Training ended at step {trainer.global_step}.")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Print the summary as far as the run got."""
        self._print(trainer, f"Training stopped after step {trainer.global_step} ({type(exception).__name__}).")

    def _print(self, trainer: pl.Trainer, headline: str) -> None:
        if trainer.is_global_zero and self._last:
            print(f"\n{headline}\n\n{table(self._first, self._last)}\n\n{places(self.run)}", flush=True)


def table(first: Mapping[str, float], last: Mapping[str, float]) -> str:
    """Two columns of values under their steps; both mappings hold ``step``. A value that is missing is a dash."""
    names = [name for name in last if name != "step"]
    names += [name for name in first if name not in last]
    width = max(map(len, names), default=0)
    steps = [f"step {column['step']:.0f}" for column in (first, last)]
    lines = [f"{'':{width}}  {steps[0]:>12}  {steps[1]:>12}"]
    lines += [f"{name:{width}}  {_number(first.get(name)):>12}  {_number(last.get(name)):>12}" for name in names]
    return "\n".join(lines)


def places(run: RunFolder) -> str:
    """Where things lie, a line each; what was not written is not named."""
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
    """The summary's rows among the logged metrics: the total reward, its components by name, then the rest."""
    matches = (_REWARD.fullmatch(key) for key in metrics)
    rewards = {match[1]: metrics[match[0]] for match in matches if match}
    rows = {"reward": rewards.pop("total")} if "total" in rewards else {}
    rows |= {f"  {name}": rewards[name] for name in sorted(rewards)}
    return rows | {name: metrics[key] for name, key in _SUMMARISED.items() if key in metrics}


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4g}"


def _total(trainer: pl.Trainer) -> int | None:
    """Optimizer steps of the whole run, ``None`` where it has no such limit."""
    return trainer.max_steps if trainer.max_steps > 0 else None
