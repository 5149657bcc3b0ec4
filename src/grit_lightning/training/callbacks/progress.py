"""Callback that shows the progress of training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm  # type: ignore[import-untyped]

from grit_lightning.errors import ConfigError

_SHOWN = {
    "reward": "reward/total/mean",
    "loss": "policy/loss",
    "KL": "policy/kl",
    "length": "rollout/length/mean",
    "tokens/s": "time/tokens_per_second",
}
"""Metrics beside the progress bar: displayed name to logged name. A reward hides the loss, which then says nothing."""


class StepProgressBar(ProgressBar):
    """Shows one progress bar over all training steps; after a resume it starts at the resumed step.

    If stderr is not a terminal (a log file, SLURM), it prints plain lines instead.

    Args:
        line_every_n_steps: training steps between plain lines. The first step after a start or resume, and the last
            step, always print a line.

    Raises:
        ConfigError: ``line_every_n_steps`` is below 1.
    """

    def __init__(self, *, line_every_n_steps: int) -> None:
        super().__init__()
        if line_every_n_steps < 1:
            raise ConfigError(f"callbacks.progress.line_every_n_steps is {line_every_n_steps}, expected at least 1")
        self.line_every_n_steps = line_every_n_steps
        self._enabled = True
        self._bar: tqdm | None = None
        self._start_time: float | None = None
        self._start_step = 0

    @property
    def is_enabled(self) -> bool:
        """True on the process that shows progress; Lightning disables it on all ranks except 0."""
        return self._enabled

    def disable(self) -> None:
        """Stop showing progress."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line above the bar, or normally if there is no bar."""
        if self._bar is None:
            print(*args, **kwargs)
        else:
            self._bar.write(kwargs.get("sep", " ").join(map(str, args)))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar if stderr is a terminal."""
        self._start_time, self._start_step = None, trainer.global_step
        if self._enabled and sys.stderr.isatty():
            total = _total(trainer)
            self._bar = tqdm(desc="Training", total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin to time at the first step: held-out questions before it are no part of the seconds a step takes."""
        if self._start_time is None:
            self._start_time = time.monotonic()
            if self._bar is not None:
                self._bar.unpause()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Update the bar, or print a line if one is due."""
        if not self._enabled:
            return
        metrics = trainer.callback_metrics
        shown = {name: metrics[key].item() for name, key in _SHOWN.items() if key in metrics}
        if "reward" in shown:
            shown.pop("loss", None)
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)
        elif self._is_line_due(trainer):
            print(self._line(trainer, shown), file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error message starts on a new line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _is_line_due(self, trainer: pl.Trainer) -> bool:
        step = trainer.global_step
        return step % self.line_every_n_steps == 0 or step in (self._start_step + 1, trainer.max_steps)

    def _line(self, trainer: pl.Trainer, shown: Mapping[str, float]) -> str:
        """Return the text of a plain line.

        Example: ``step 12/200  reward 1.25  KL 0.0031  length 310  tokens/s 950  4.1 s/step  12:50 left``.
        """
        total = _total(trainer)
        started = time.monotonic() if self._start_time is None else self._start_time
        seconds = (time.monotonic() - started) / max(1, trainer.global_step - self._start_step)
        parts = [f"step {trainer.global_step}" + (f"/{total}" if total else "")]
        parts += [f"{name} {value:.3g}" for name, value in shown.items()]
        parts += [f"{seconds:.3g} s/step"]
        if total:
            parts += [f"{tqdm.format_interval(seconds * (total - trainer.global_step))} left"]
        return "  ".join(parts)


def _total(trainer: pl.Trainer) -> int | None:
    """Return the number of training steps of the whole run, or ``None`` if ``max_steps`` is not set."""
    return trainer.max_steps if trainer.max_steps > 0 else None
