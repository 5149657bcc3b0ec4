"""Callback that answers held-out questions before, during and after training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from grit_lightning.data.subset import subset
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.during_training import DuringTraining
from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.evaluation.metrics import MACRO, OVERALL, summary
from grit_lightning.evaluation.predictions import Prediction, write_predictions
from grit_lightning.evaluation.tables import number
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.callbacks.heldout_answers import predict_on_all
from grit_lightning.training.callbacks.tracked import TrackedExamples
from grit_lightning.training.grpo import GRPOModule
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.types import Sample

log = logging.getLogger(__name__)


class HeldoutEvaluation(Checkpoint):
    """Answers held-out samples with the current policy, as :class:`DuringTraining` says.

    Before the first step it writes ``eval/before.jsonl``, after the last ``eval/after.jsonl``. In between, every
    ``every_n_steps``, it writes ``eval/training/step_000020.jsonl`` (for step 20), logs ``heldout/DATASET/METRIC``, and
    keeps the checkpoint of the step with the best value of ``monitor`` as ``best.ckpt``. Answering does not influence
    training: it changes neither weights nor random state. Several processes share the samples.

    Answers that a stopped run left unfinished are given when it is resumed, after the last step too. Lightning calls
    callbacks of the type ``Checkpoint`` after all others: a step is complete when its weights are evaluated.

    Args:
        out: the run folder.
        evaluator: decodes and scores the answers.

    Raises:
        ConfigError: the evaluator has an engine of its own, or (from ``setup``) ``monitor`` is not a metric of the
            held-out samples.
    """

    def __init__(self, *, out: str, evaluator: Evaluator) -> None:
        if not evaluator.engine.runs_policy:
            raise ConfigError(
                f"evaluation.engine={evaluator.engine.name} is for task=evaluate and task=bench, expected null: "
                "in training the policy itself answers held-out questions"
            )
        self.run = RunFolder(Path(out))
        self.evaluator = evaluator
        self.options = evaluator.during_training
        self.has_stopped = False
        self._ends: list[Sample] = []  # answered before the first and after the last step
        self._between: list[Sample] = []
        self._best: float | None = None
        self._best_step = 0
        self._worse_in_a_row = 0
        self._evaluated_step = 0
        self._latest: dict[str, list[Prediction]] = {}  # by sample, those of the weights as they are

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, its step, and the evaluations since, for the checkpoint."""
        return {
            "best": self._best,
            "best_step": self._best_step,
            "worse_in_a_row": self._worse_in_a_row,
            "evaluated_step": self._evaluated_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, its step, and the evaluations since from a checkpoint."""
        self._best, self._best_step = state_dict["best"], state_dict["best_step"]
        self._worse_in_a_row = state_dict["worse_in_a_row"]
        # Checkpoints of earlier versions were saved after the evaluation of their step, and lack this.
        self._evaluated_step = state_dict.get("evaluated_step", 2**63)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read the held-out samples and check ``monitor`` before weights are loaded, so that errors appear early."""
        options = self.options
        if options is None or (options.before_and_after == 0 and options.every_n_steps is None):
            return
        samples = trainer.datamodule.val_samples()  # type: ignore[attr-defined]
        if options.before_and_after != 0:
            self._ends = subset(samples, options.before_and_after)
        if options.every_n_steps is not None:
            self._between = subset(samples, options.max_samples)
        if self._between:
            _check_monitor(options.monitor, self._between, self.evaluator)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer what the run should have answered by now: before its first step, or after that of the checkpoint."""
        step = trainer.global_step
        if step == 0:
            before = self._predict(trainer, pl_module, self._ends, "before training")
            self._write(self.run.before_file, trainer, before)
        elif self._is_due(step) and self._evaluated_step < step:
            self._evaluate(trainer, pl_module)
        self._stop_early(trainer)  # a run that was killed after it had stopped early does not train on

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Evaluate if this step is due."""
        self._latest = {}
        if self._is_due(trainer.global_step):
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer the samples after the last step; not after a step at which training was merely cut short."""
        if self._ends and has_finished(trainer):
            left = [sample for sample in self._ends if sample.id not in self._latest]
            found = self._latest | _by_sample(self._predict(trainer, pl_module, left, "after training"))
            self._write(self.run.after_file, trainer, [one for sample in self._ends for one in found[sample.id]])

    def _is_due(self, step: int) -> bool:
        every = self.options.every_n_steps if self.options is not None else None
        return bool(self._between) and every is not None and step % every == 0

    def _evaluate(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        step = trainer.global_step
        predictions = self._predict(trainer, module, self._between, f"after step {step}")
        self._latest = _by_sample(predictions)
        found = summary(predictions)
        values = {f"{name}/{key}": value for name, column in found.items() for key, value in column.items()}
        for logger in trainer.loggers:
            numbers = {f"heldout/{key}": float(value) for key, value in values.items() if value is not None}
            logger.log_metrics(numbers | {"step": float(step)}, step=step)
        self._write(self.run.evaluation / "training" / f"step_{step:06d}.jsonl", trainer, predictions)
        self._evaluated_step = step
        self._judge_step(trainer, values[cast(DuringTraining, self.options).monitor])

    def _predict(
        self, trainer: pl.Trainer, module: pl.LightningModule, samples: Sequence[Sample], when: str
    ) -> list[Prediction]:
        if not samples:
            return []
        policy = cast(PolicyModule, module)
        what = f"answering held-out questions {when}"
        predictions = predict_on_all(trainer, policy, self.evaluator, samples, what=what)
        if isinstance(policy, GRPOModule):
            policy.judge_watch.reset()  # this evaluation's questions must not count in the next training step
        return predictions

    def _write(self, path: Path, trainer: pl.Trainer, predictions: Sequence[Prediction]) -> None:
        if trainer.is_global_zero and predictions:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_predictions(path, predictions)
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, TrackedExamples):
                    callback.held_out(trainer, predictions)

    def _judge_step(self, trainer: pl.Trainer, value: float | None) -> None:
        """Keep the checkpoint if ``value`` is the best so far, else count towards ``patience``.

        All processes have the same value, so they decide alike. An evaluation without a value is ignored.
        """
        options = self.options
        if value is None or options is None:
            return
        step = trainer.global_step
        better = self._best is None or (value > self._best if options.mode == "max" else value < self._best)
        if better:
            self._best, self._best_step, self._worse_in_a_row = value, step, 0
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, StepCheckpoint):
                    callback.keep_best(trainer)
        else:
            self._worse_in_a_row += 1
        if trainer.is_global_zero and trainer.progress_bar_callback is not None:
            best = "the best so far" if better else f"best {number(self._best)} after step {self._best_step}"
            name, questions = options.monitor, f"{len(self._between)} questions"
            trainer.progress_bar_callback.print(
                f"held-out {name} after step {step}: {number(value)} on {questions}, {best}"
            )
        self._stop_early(trainer)

    def _stop_early(self, trainer: pl.Trainer) -> None:
        patience = None if self.options is None else self.options.patience
        if patience is not None and self._worse_in_a_row >= patience:
            self.has_stopped = trainer.should_stop = True
            name, step = cast(DuringTraining, self.options).monitor, trainer.global_step
            log.info("stopped after step %d: %s has not improved since step %d", step, name, self._best_step)


def has_finished(trainer: pl.Trainer) -> bool:
    """Tell whether the run has taken its last step, by ``trainer.max_steps`` or by early stopping."""
    stopped = any(one.has_stopped for one in trainer.callbacks if isinstance(one, HeldoutEvaluation))  # type: ignore[attr-defined]
    return stopped or 0 < trainer.max_steps <= trainer.global_step


def _by_sample(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    for one in predictions:
        found.setdefault(one["sample_id"], []).append(one)
    return found


def _check_monitor(monitor: str, samples: Sequence[Sample], evaluator: Evaluator) -> None:
    """Raise ConfigError if ``monitor`` is not a metric of an evaluation on these samples."""
    datasets = sorted({sample.dataset for sample in samples})
    datasets = [OVERALL, *datasets, *([MACRO] if len(datasets) > 1 else [])]
    dataset, _, metric = monitor.partition("/")
    if dataset not in datasets or metric not in evaluator.metric_names:
        raise ConfigError(
            f"evaluation.during_training.monitor is {monitor!r}, expected DATASET/METRIC of the held-out samples: "
            f"one of {', '.join(datasets)}, and one of {', '.join(evaluator.metric_names)}"
        )
