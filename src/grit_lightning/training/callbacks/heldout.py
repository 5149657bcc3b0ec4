"""Callback that evaluates on held-out samples during training: metrics, best checkpoint, early stopping."""

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
    """Evaluates the policy on the same held-out samples every ``every_n_steps``.

    It logs ``heldout/DATASET/METRIC``, writes the predictions to ``eval/training/step_000020.jsonl`` (for step 20), and
    keeps the checkpoint of the step with the best value of ``monitor`` as ``best.ckpt``. The evaluation does not
    influence training: it changes neither weights nor random state.

    Args:
        out: the run folder.
        evaluator: decodes and scores the answers.
        every_n_steps: training steps between evaluations; ``None`` for no evaluation.
        max_samples: number of held-out samples, always the same ones; ``None`` for all.
        monitor: metric that selects the best checkpoint, as ``DATASET/METRIC``, such as ``overall/accuracy``.
        mode: ``max`` if higher values of the metric are better, ``min`` if lower.
        patience: number of evaluations in a row without improvement after which training stops; ``None`` to never
            stop early.

    Raises:
        ConfigError: a number is below 1, or (from ``setup``) ``monitor`` is not a metric of the held-out samples.
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
        """Return the best value so far, its step, and the evaluations since, for the checkpoint."""
        return {"best": self._best, "best_step": self._best_step, "worse_in_a_row": self._worse_in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, its step, and the evaluations since from a checkpoint."""
        self._best, self._best_step = state_dict["best"], state_dict["best_step"]
        self._worse_in_a_row = state_dict["worse_in_a_row"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read the held-out samples and check ``monitor`` before weights are loaded, so that errors appear early."""
        if self.every_n_steps is not None:
            self._samples = subset(trainer.datamodule.val_samples(), self.max_samples)  # type: ignore[attr-defined]
        if self._samples:
            self._check_monitor()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Evaluate if this step is due."""
        step = trainer.global_step
        if not self._samples or self.every_n_steps is None or step % self.every_n_steps:
            return
        module = cast(PolicyModule, pl_module)
        predictions = predict_on_all(
            trainer, module, self.evaluator, self._samples, what=f"answering held-out questions after step {step}"
        )
        if isinstance(module, GRPOModule):
            module.judge_watch.reset()  # this evaluation's questions must not count in the next training step
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
        """Raise ConfigError if ``monitor`` is not a metric of the evaluation."""
        datasets = sorted({sample.dataset for sample in self._samples})
        datasets = [OVERALL, *datasets, *([MACRO] if len(datasets) > 1 else [])]
        dataset, _, metric = self.monitor.partition("/")
        if dataset not in datasets or metric not in self.evaluator.metric_names:
            raise ConfigError(
                f"callbacks.heldout.monitor is {self.monitor!r}, expected DATASET/METRIC of the held-out samples: "
                f"one of {', '.join(datasets)}, and one of {', '.join(self.evaluator.metric_names)}"
            )

    def _judge_step(self, trainer: pl.Trainer, value: float | None) -> None:
        """Keep the checkpoint if ``value`` is the best so far, else count towards ``patience``.

        All processes have the same value, so they decide alike. An evaluation without a value is ignored.
        """
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
            log.info("stopped after step %d: %s has not improved since step %d", step, self.monitor, self._best_step)
