"""The callback that decides when checkpoints of a run are written.

It replaces Lightning's own ``ModelCheckpoint`` (2.6.6), which with manual optimization warns in every run that it saves
the weights after the step, which is intended here. It deletes checkpoints that it considers superseded. On Ctrl-C it
saves the weights in any state, even in the middle of an update.
"""

from __future__ import annotations

import logging
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.hooks import RemovableHandle

from grit_lightning.errors import ConfigError, JudgeError, NotFiniteError, RewardError, StaleEngineError
from grit_lightning.runs.checkpoint_files import BEST_CHECKPOINT, LAST_CHECKPOINT
from grit_lightning.system.files import free_path, replacing
from grit_lightning.system.stop import Stopped, stop_signals
from grit_lightning.training.checkpoint_writer import BackgroundCheckpointIO

log = logging.getLogger(__name__)


class AgreedStop(Stopped):
    """A request to stop, raised by all processes at the end of the same step."""


RAISED_BY_ALL = (AgreedStop, JudgeError, RewardError, NotFiniteError, StaleEngineError)
"""Exceptions that all processes raise at the same point of a step."""


class StepCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` and, every ``every_n_steps``, a checkpoint that is never replaced.

    ``last.ckpt`` holds the newest saved state. It is replaced atomically: every ``last_every_n_steps``, with each kept
    checkpoint, after the last step, and when Ctrl-C, SIGTERM or an error stops training. A kept checkpoint, such as
    ``step_000050.ckpt``, is a hard link to the ``last.ckpt`` of its step, so it is not written twice. So is
    ``best.ckpt``, which :meth:`keep_best` replaces. Files are written while training
    goes on (:class:`BackgroundCheckpointIO`); links are made once the file is whole.

    An interrupted step counts as not begun: weights and loop counters are saved as they were before it. A request to
    stop (Ctrl-C, SIGTERM, SIGHUP) that comes during a weight update is obeyed when the step has ended. After an error
    within an update nothing is saved, because the weights are those of no step.

    Several processes agree at the end of each step whether one of them was asked to stop. They also save together
    after :class:`JudgeError`, :class:`RewardError` and :class:`NotFiniteError`, which all raise at the same point.
    After any other error in one process the others may wait in another collective operation, and saving, which is
    collective, would hang.

    Args:
        dirpath: folder of the run's checkpoints.
        every_n_steps: training steps between kept checkpoints; ``None`` to keep none.
        last_every_n_steps: training steps between updates of ``last.ckpt``; ``None`` to write it only at the other
            occasions above.

    Raises:
        ConfigError: a number of steps is below 1.
    """

    def __init__(self, *, dirpath: str, every_n_steps: int | None, last_every_n_steps: int | None) -> None:
        for key, steps in (("every_n_steps", every_n_steps), ("last_every_n_steps", last_every_n_steps)):
            if steps is not None and steps < 1:
                raise ConfigError(f"callbacks.checkpoint.{key} is {steps}, expected at least 1, or null")
        self.dirpath = Path(dirpath)
        self.every_n_steps = every_n_steps
        self.last_every_n_steps = last_every_n_steps
        self._saved_step: int | None = None  # step of last.ckpt or of the start; None before training
        self._within_step = False
        self._update_begun = False
        self._hooks: list[RemovableHandle] = []

    @property
    def last_path(self) -> Path:
        """Path of the newest checkpoint; the file exists after the first save."""
        return self.dirpath / LAST_CHECKPOINT

    def keep_best(self, trainer: pl.Trainer) -> None:
        """Save the step that has just ended also as ``best.ckpt``.

        Collective: every process must call it, after this callback's own ``on_train_batch_end``.
        """
        self._save_last(trainer)
        self._keep_last(trainer, self.dirpath / BEST_CHECKPOINT)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write all checkpoints of the trainer this way, also those saved by others, such as SLURM's requeue handler.

        Raises:
            ConfigError: the strategy writes sharded checkpoints.
        """
        if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
            raise ConfigError(
                "strategy.save_distributed_checkpoint is true, expected false: only single files are written atomically"
            )
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = BackgroundCheckpointIO()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Register hooks that note the beginning of each weight update, and take over the signals from Lightning."""
        stop_signals.install()
        if trainer.world_size > 1:
            stop_signals.postpone()
        # After a resume from an older checkpoint, last.ckpt is damaged and does not hold this step.
        is_last = trainer.ckpt_path is None or Path(trainer.ckpt_path) == self.last_path
        self._saved_step = trainer.global_step if is_last else -1
        self._within_step = self._update_begun = False
        hook = self._note_update
        self._hooks = [optimizer.register_step_pre_hook(hook) for optimizer in trainer.optimizers]

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note that a step has begun; until its update begins, the weights are still those of the previous step.

        Raises:
            CheckpointError: the last checkpoint could not be written.
        """
        self._within_step = True
        _writer(trainer).require_success()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save if this step is due for ``last.ckpt`` or a kept checkpoint, or is the last step; stop if asked to.

        Raises:
            Stopped: this process was asked to stop; with several processes, one of them (:class:`AgreedStop`).
        """
        self._within_step = self._update_begun = False
        step = trainer.global_step
        keep = _is_due(step, self.every_n_steps)
        # The checkpoint of the last step is written here. In `on_train_end` Lightning has already closed the epoch, and
        # a run resumed with more steps would not continue exactly like an uninterrupted one.
        if keep or _is_due(step, self.last_every_n_steps) or step == trainer.max_steps:
            self._save_last(trainer)
        if keep:
            # A run resumed from an earlier checkpoint reaches this step again: both checkpoints are kept.
            self._keep_last(trainer, free_path(self.dirpath / f"step_{step:06d}.ckpt", ".ckpt"))
        self._obey_signals(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if training ended before its last step (time limit or early stopping), and wait for the file."""
        self._save_last(trainer)
        _writer(trainer).wait()
        self._stop_watching()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state before the interrupted step if possible, and log how to resume."""
        try:
            if self._saved_step is not None and trainer.global_step != self._saved_step:
                self._save_interrupted(trainer, exception)
            _writer(trainer).wait()
            if trainer.is_global_zero:
                self._say_how_to_go_on(trainer.global_step, exception)
        except Exception as error:
            # Only warn: the user must see the exception that stopped training.
            rank_zero_warn(f"No checkpoint could be written after the interruption: {error}")
        finally:
            self._stop_watching()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the loop counters of an interrupted step back; otherwise the step that loggers see is one too high."""
        if self._within_step:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for tracker in (progress["total"], progress["current"]):
                tracker.update(dict.fromkeys(("ready", "started", "processed"), tracker["completed"]))

    def _say_how_to_go_on(self, step: int, exception: BaseException) -> None:
        reason = str(exception) if isinstance(exception, Stopped) else type(exception).__name__
        # Said also if the state had already been saved before the interruption.
        saved = f"the {step} steps done are saved; " if step and step == self._saved_step else ""
        log.info("%s: %scontinue with resume=%s", reason, saved, self.dirpath.parent)

    def _obey_signals(self, trainer: pl.Trainer) -> None:
        """Raise if a process was asked to stop. Collective with several processes, which then stop at the same step."""
        if trainer.world_size == 1:
            stop_signals.resume()
            stop_signals.raise_received()
        else:
            here = stop_signals.received or 0
            signum = int(trainer.strategy.reduce(torch.tensor(float(here)), reduce_op="max"))
            if signum:
                stop_signals.received = signum
                raise AgreedStop(signum)

    def _save_interrupted(self, trainer: pl.Trainer, exception: BaseException) -> None:
        reason = type(exception).__name__
        if self._update_begun:
            rank_zero_warn(f"{reason} during a weight update: all progress since step {self._saved_step} is lost.")
        elif trainer.world_size > 1 and not isinstance(exception, RAISED_BY_ALL):
            rank_zero_warn(f"{reason} in one of several processes: all progress since step {self._saved_step} is lost.")
        else:
            self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt`` unless it already holds this step. Collective: must be called on every process."""
        if getattr(trainer, "fast_dev_run", False) or trainer.global_step == self._saved_step:
            return
        trainer.save_checkpoint(self.last_path, weights_only=False)
        self._saved_step = trainer.global_step

    def _keep_last(self, trainer: pl.Trainer, path: Path) -> None:
        if trainer.is_global_zero:
            _writer(trainer).then(partial(_link, self.last_path, path))

    def _note_update(self, *_: Any) -> None:
        self._update_begun = True
        stop_signals.postpone()

    def _stop_watching(self) -> None:
        stop_signals.resume()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _writer(trainer: pl.Trainer) -> BackgroundCheckpointIO:
    io = trainer.strategy.checkpoint_io
    return io if isinstance(io, BackgroundCheckpointIO) else BackgroundCheckpointIO()  # a user's own plugin: no thread


def _is_due(step: int, every_n_steps: int | None) -> bool:
    return every_n_steps is not None and step % every_n_steps == 0


def _link(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a copy on a file system without hard links."""
    if not source.exists():  # nothing was saved, as in a trial run of Lightning (fast_dev_run)
        return
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
