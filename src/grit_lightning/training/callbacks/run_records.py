"""Callbacks that record rollouts and resumes in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from grit_lightning.runs.inputs import Inputs
from grit_lightning.runs.inputs import write as write_inputs
from grit_lightning.runs.records import records
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.runs.run_folder import RunFolder


class RolloutWriter(Callback):
    """Stores the rollouts of all ranks after each step (``runs.rollout_store``), before the step's checkpoint.

    Args:
        out: the run folder.
    """

    def __init__(self, *, out: str) -> None:
        self.store = RolloutStore(RunFolder(Path(out)).rollouts)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        """Gather the step's rollouts of all ranks, and write them on rank 0.

        ``outputs["output"]`` is the :class:`StepOutput` of this rank, as ``GRPOModule.training_step`` returned it.
        """
        done = outputs["output"]
        step_records = records(done.step, done.groups, done.scores, done.advantages_P_G)
        if trainer.world_size > 1:
            of_ranks: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(of_ranks, step_records)
            step_records = [record for of_rank in of_ranks for record in of_rank]
        if trainer.is_global_zero:
            self.store.write(done.step, step_records)


class ResumeNote(Callback):
    """Records a resume in the run folder after its first completed step.

    Later resumes apply the recorded overrides again, so a resume that fails before its first step is not recorded.

    Args:
        run: the run folder.
        checkpoint: the checkpoint that the run resumes from; ``None`` if it begins again.
        step: training steps done in that checkpoint.
        overrides: command-line overrides of this process.
    """

    def __init__(self, run: RunFolder, checkpoint: Path | None, step: int, overrides: Sequence[str]) -> None:
        self._note = (checkpoint, step, overrides)
        self._run = run
        self._inputs: Inputs | None = None
        self._changed: Sequence[str] = ()
        self._noted = False

    def inputs(self, inputs: Inputs, changed: Sequence[str]) -> None:
        """Record also the inputs with which the run goes on, and what has changed in them, as was allowed."""
        self._inputs, self._changed = inputs, changed

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Record the resume after the first step."""
        if trainer.is_global_zero and not self._noted:
            self._run.append_resume(*self._note, self._changed)
            if self._inputs is not None:
                write_inputs(self._run.inputs_file, self._inputs)
            self._noted = True


class FinishOnly(Callback):
    """Lets a run whose last step is done answer its held-out questions and write its report.

    Lightning skips ``fit`` altogether when ``max_steps`` is reached, so this raises it until training has begun.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Allow one more step."""
        trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps + 1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take it back, so that training ends before it takes a step."""
        trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps - 1
