"""Checkpoints of a run: when they are written, and that each is whole.

Lightning's own ``ModelCheckpoint`` and ``TorchCheckpointIO`` (2.6.6) do not serve here, for these reasons:

- ``TorchCheckpointIO`` builds the archive in memory, writes it to the system's temporary folder and *moves* it. Where
  that folder is another file system, as is usual on a cluster, the move is a copy onto the final name: a process
  killed within it leaves a torn file there, and a small ``/tmp`` cannot take it at all. Nothing is fsynced.
- ``ModelCheckpoint`` with manual optimization warns in every run that weights are those after the step, which is what
  is wanted; it deletes what it thinks superseded; and on Ctrl-C it saves whatever the weights are, mid-update too.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.hooks import RemovableHandle

from grit_lightning.errors import CheckpointError, ConfigError, JudgeError
from grit_lightning.runs.run_folder import BEST_CHECKPOINT, LAST_CHECKPOINT
from grit_lightning.system.files import free_path, replacing

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Streams a checkpoint to a file beside its final name, and renames it once it is on disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to the local file ``path``, whole or not at all; makes its folder.

        Raises:
            CheckpointError: the disk is full, or the folder cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error.strerror}.") from error


class StepCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` and, at chosen steps, a checkpoint that is kept.

    ``last.ckpt`` always holds the newest state. It is replaced atomically: every ``last_every_n_steps``, at each kept
    checkpoint, at the last step, and when training is stopped by Ctrl-C, SIGTERM or an error. A kept checkpoint,
    ``step_000050.ckpt``, is a second name (hard link) of the ``last.ckpt`` of its step: it costs no second write. So is
    ``best.ckpt``, which is replaced whenever :meth:`keep_best` asks for it.

    A step that is interrupted counts as not begun: weights and loop counters are saved as they were before it. Where
    its weight update had begun nothing is saved, since such weights belong to no step.

    With several processes only SIGTERM, which Lightning brings to all of them, and a judge that is down, which all of
    them find at the same point, lead to a checkpoint: after Ctrl-C or an error in one process the others may be waiting
    in another collective, and a common save would hang.

    Args:
        dirpath: the run's folder of checkpoints.
        every_n_steps: optimizer steps between kept checkpoints, or ``None`` to keep none.
        last_every_n_steps: optimizer steps between updates of ``last.ckpt``, or ``None`` for the other occasions alone.
    """

    def __init__(self, *, dirpath: str, every_n_steps: int | None, last_every_n_steps: int | None) -> None:
        for key, steps in (("every_n_steps", every_n_steps), ("last_every_n_steps", last_every_n_steps)):
            if steps is not None and steps < 1:
                raise ConfigError(f"callbacks.checkpoint.{key}={steps}: expected a whole number from 1, or null.")
        self.dirpath = Path(dirpath)
        self.every_n_steps = every_n_steps
        self.last_every_n_steps = last_every_n_steps
        self._saved_step: int | None = None  # None: not training
        self._is_best = False
        self._within_step = False
        self._update_begun = False
        self._hooks: list[RemovableHandle] = []

    @property
    def last_path(self) -> Path:
        """Where the newest checkpoint lies once there is one."""
        return self.dirpath / LAST_CHECKPOINT

    def keep_best(self) -> None:
        """Have the step that is ending saved as ``best.ckpt`` too. To be called on every process."""
        self._is_best = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See to it that files are written whole, whoever asks for them (SLURM's requeue handler does too)."""
        if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
            raise ConfigError("strategy.save_distributed_checkpoint must be false: sharded folders are not atomic.")
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to watch for weight updates."""
        self._saved_step = trainer.global_step
        self._within_step = self._update_begun = False
        hook = self._note_update
        self._hooks = [optimizer.register_step_pre_hook(hook) for optimizer in trainer.optimizers]

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Weights and counters are those of a whole number of steps until the update begins."""
        self._within_step = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save at the steps that were asked for, and at the last step."""
        self._within_step = self._update_begun = False
        step = trainer.global_step
        keep = _is_due(step, self.every_n_steps)
        # The last step's checkpoint is written here, not in `on_train_end`, where Lightning has closed the epoch: so a
        # run continued with more steps goes on exactly as if it had not paused.
        if keep or self._is_best or _is_due(step, self.last_every_n_steps) or step == trainer.max_steps:
            self._save_last(trainer)
        if keep:
            # A run that was set back to an earlier step passes this one again: both checkpoints are kept.
            self._keep_last(trainer, free_path(self.dirpath / f"step_{step:06d}.ckpt", ".ckpt"))
        if self._is_best:
            self._keep_last(trainer, self.dirpath / BEST_CHECKPOINT)
            self._is_best = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where training ended before its last step (a time limit, early stopping)."""
        self._save_last(trainer)
        self._stop_watching()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what was done before the interruption, where that can be saved."""
        try:
            if self._saved_step is not None and trainer.global_step != self._saved_step:
                self._save_interrupted(trainer, exception)
            # Said also where the interruption came upon a step that was saved already.
            if trainer.global_step == self._saved_step and trainer.is_global_zero and self.last_path.exists():
                log.info(
                    "%s: the %d steps done are saved; continue with resume=%s",
                    type(exception).__name__,
                    trainer.global_step,
                    self.dirpath.parent,
                )
        except Exception as error:
            # The exception that stopped the training is what the user must see.
            rank_zero_warn(f"No checkpoint could be written after the interruption: {error}")
        finally:
            self._stop_watching()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the counters of an interrupted step say that it was not begun: else the loggers' step is one too high."""
        if self._within_step:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for tracker in (progress["total"], progress["current"]):
                tracker.update(dict.fromkeys(("ready", "started", "processed"), tracker["completed"]))

    def _save_interrupted(self, trainer: pl.Trainer, exception: BaseException) -> None:
        reason = type(exception).__name__
        if self._update_begun:
            rank_zero_warn(f"{reason} within a weight update: what was done since step {self._saved_step} is lost.")
        elif trainer.world_size > 1 and not isinstance(exception, SIGTERMException | JudgeError):
            rank_zero_warn(
                f"{reason} in one of several processes: what was done since step {self._saved_step} is lost."
            )
        else:
            self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt`` unless it holds this step. Collective: called on every process."""
        if getattr(trainer, "fast_dev_run", False) or trainer.global_step == self._saved_step:
            return
        trainer.save_checkpoint(self.last_path, weights_only=False)
        self._saved_step = trainer.global_step

    def _keep_last(self, trainer: pl.Trainer, path: Path) -> None:
        if trainer.is_global_zero and self.last_path.exists():
            _link(self.last_path, path)

    def _note_update(self, *_: Any) -> None:
        self._update_begun = True

    def _stop_watching(self) -> None:
        self._saved_step = None
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _is_due(step: int, every_n_steps: int | None) -> bool:
    return every_n_steps is not None and step % every_n_steps == 0


def _link(source: Path, target: Path) -> None:
    """A second name for ``source``, or a copy on a file system without hard links."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
