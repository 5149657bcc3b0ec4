"""Held-out samples answered every few steps of a training: curves, the best checkpoint, and an early end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from grit_lightning.data.subset import subset
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.evaluation.metrics import MACRO, OVERALL, summary
from grit_lightning.evaluation.predictions import write_predictions
from grit_lightning.evaluation.tables import number
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.callbacks.heldout_answers import predict_on_all
from grit_lightning.training.grpo import GRPOModule
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.types import Sample

log = logging.getLogger(__name__)


class HeldoutEvaluation(Callback):
    """Answers the same few held-out samples every so many steps, as the run's own evaluation would.

    It logs ``heldout/DATASET/METRIC``, writes the predictions to ``eval/training/step_000020.jsonl``, and has the
    checkpoint kept as ``best.ckpt`` whenever ``monitor`` is better than ever before. The policy is as it was: training
    goes on as if nothing had been asked.

    Args:
        out: the run folder.
        evaluator: how samples are answered.
        every_n_steps: optimizer steps between evaluations; ``None`` for none.
        max_samples: of the held-out samples, drawn once and for all; ``None`` for all.
        monitor: what is to get better, ``DATASET/METRIC``, such as ``overall/accuracy``.
        mode: whether more of it is better.
        patience: evaluations in a row without a better value that end the training; ``None``: it goes on to its end.
    """

    def __init__(
        self,
        *,
        out: str,
        evaluator: Evaluator,
        every_n_steps: int | None,
        max_samples: int | None,
        monitor: str,
        mode: Literal["max", "min"],
        patience: int | None,
    ) -> None:
        for key, value in (("every_n_steps", every_n_steps), ("max_samples", max_samples), ("patience", patience)):
            if value is not None and value < 1:
                raise ConfigError(f"callbacks.heldout.{key} is {value}, expected at least 1, or null")
        self.folder = RunFolder(Path(out)).evaluation / "training"
        self.evaluator = evaluator
        self.every_n_steps = every_n_steps
        self.max_samples = max_samples
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.has_stopped = False
        self._samples: list[Sample] = []
        self._best: float | None = None
        self._best_step = 0
        self._worse_in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self._best, "best_step": self._best_step, "worse_in_a_row": self._worse_in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value so far."""
        self._best, self._best_step = state_dict["best"], state_dict["best_step"]
        self._worse_in_a_row = state_dict["worse_in_a_row"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read and check the held-out samples, before weights are loaded."""
        if self.every_n_steps is not None:
            self._samples = subset(trainer.datamodule.val_samples(), self.max_samples)  # type: ignore[attr-defined]
        if self._samples:
            self._check_monitor()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Evaluate, where it is due."""
        step = trainer.global_step
        if not self._samples or self.every_n_steps is None or step % self.every_n_steps:
            return
        module = cast(PolicyModule, pl_module)
        predictions = predict_on_all(
            trainer, module, self.evaluator, self._samples, what=f"answering held-out questions after step {step}"
        )
        if isinstance(module, GRPOModule):
            module.judge_watch.reset()  # what was asked here is not of a training step
        found = summary(predictions)
        values = {f"{name}/{key}": value for name, column in found.items() for key, value in column.items()}
        for logger in trainer.loggers:
            numbers = {f"heldout/{key}": float(value) for key, value in values.items() if value is not None}
            logger.log_metrics(numbers | {"step": float(step)}, step=step)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_predictions(self.folder / f"step_{step:06d}.jsonl", predictions)
        self._judge_step(trainer, values[self.monitor])

    def _check_monitor(self) -> None:
        """Now, not after the first evaluation."""
        datasets = sorted({sample.dataset for sample in self._samples})
        datasets = [OVERALL, *datasets, *([MACRO] if len(datasets) > 1 else [])]
        dataset, _, metric = self.monitor.partition("/")
        if dataset not in datasets or metric not in self.evaluator.metric_names:
            raise ConfigError(
                f"callbacks.heldout.monitor is {self.monitor!r}, expected DATASET/METRIC of the held-out samples: "
                f"one of {', '.join(datasets)}, and one of {', '.join(self.evaluator.metric_names)}"
            )

    def _judge_step(self, trainer: pl.Trainer, value: float | None) -> None:
        """Keep what is better than ever before; end what has not been for too long. The same on every process."""
        if value is None:
            return
        step = trainer.global_step
        better = self._best is None or (value > self._best if self.mode == "max" else value < self._best)
        if better:
            self._best, self._best_step, self._worse_in_a_row = value, step, 0
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, StepCheckpoint):
                    callback.keep_best()
        else:
            self._worse_in_a_row += 1
        if trainer.is_global_zero and trainer.progress_bar_callback is not None:
            best = "the best so far" if better else f"best {number(self._best)} after step {self._best_step}"
            trainer.progress_bar_callback.print(f"held-out {self.monitor} after step {step}: {number(value)}, {best}")
        if self.patience is not None and self._worse_in_a_row >= self.patience:
            self.has_stopped = trainer.should_stop = True
            log.info(
                "stopped after step %d: %s has not become better since step %d", step, self.monitor, self._best_step
            )
