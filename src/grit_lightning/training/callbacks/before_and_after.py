"""Callback that compares answers to held-out samples before the first and after the last training step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from grit_lightning.data.subset import subset
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.evaluation.intervals import differences
from grit_lightning.evaluation.metrics import sample_values, summary
from grit_lightning.evaluation.predictions import Prediction, key, read_predictions, write_predictions
from grit_lightning.evaluation.tables import BRIEF, comparison_table
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import write_atomic
from grit_lightning.training.callbacks.heldout_answers import predict_on_all, stopped_early
from grit_lightning.training.callbacks.plots import plot_examples, plot_rewards
from grit_lightning.training.grpo import GRPOModule
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.training.step_metrics import reward_means
from grit_lightning.types import Sample


class Demonstration(Callback):
    """Evaluates the policy on held-out samples before and after training, and reports the differences.

    It uses the run's own prompt, writes ``eval/before.jsonl``, ``eval/after.jsonl``, ``eval/metrics.json``,
    ``plots/rewards.png`` and ``plots/examples.png``, and prints a table. The evaluation does not influence training: it
    changes neither weights nor random state. A resumed run compares with the answers from before its very first step.

    The report is written after step ``trainer.max_steps``, or when :class:`HeldoutEvaluation` stops training early. A
    run that ends earlier has no report; ``task=evaluate`` evaluates its checkpoint. Several processes share the
    samples.

    Args:
        out: the run folder.
        evaluator: decodes and scores the answers.
        max_samples: number of held-out samples, always the same ones; ``None`` for all, 0 for none.

    Raises:
        ConfigError: ``max_samples`` is negative.
    """

    def __init__(self, *, out: str, evaluator: Evaluator, max_samples: int | None) -> None:
        if max_samples is not None and max_samples < 0:
            raise ConfigError(f"callbacks.demonstration.max_samples is {max_samples}, expected at least 0, or null")
        self.run = RunFolder(Path(out))
        self.evaluator = evaluator
        self.max_samples = max_samples
        self._samples: list[Sample] = []
        self._history: list[dict[str, float]] = []
        self._report = ""

    @property
    def before_file(self) -> Path:
        """File of the predictions before the first step."""
        return self.run.evaluation / "before.jsonl"

    @property
    def after_file(self) -> Path:
        """File of the predictions after the last step."""
        return self.run.evaluation / "after.jsonl"

    def state_dict(self) -> dict[str, Any]:
        """Return the mean rewards of all steps so far, for the checkpoint."""
        return {"history": [dict(step) for step in self._history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the mean rewards of earlier steps from a checkpoint."""
        self._history = [dict(step) for step in state_dict["history"]]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read and check the held-out samples before weights are loaded, so that errors in the data appear early."""
        if self.max_samples != 0:
            self._samples = subset(trainer.datamodule.val_samples(), self.max_samples)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer the samples before the first step; a resumed run already has these answers."""
        if self._samples and trainer.global_step == 0:
            before = self._predict(trainer, pl_module, "answering held-out questions before training")
            if trainer.is_global_zero:
                self.run.evaluation.mkdir(parents=True, exist_ok=True)
                write_predictions(self.before_file, before)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Store this step's mean rewards."""
        rewards = reward_means({key: float(value) for key, value in trainer.callback_metrics.items()})
        if rewards:
            self._history.append({"step": trainer.global_step, **rewards})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer the samples after the last step, and write predictions, metrics and plots."""
        at_the_end = 0 < trainer.max_steps <= trainer.global_step or stopped_early(trainer)
        if trainer.received_sigterm or not at_the_end:
            return
        if self._samples:
            after = self._predict(trainer, pl_module, "answering held-out questions after training")
            if trainer.is_global_zero:
                self._write_answers(after)
        if trainer.is_global_zero and self._history:
            self.run.plots.mkdir(parents=True, exist_ok=True)
            weights = cast(GRPOModule, pl_module).rewards.weights  # only GRPOModule logs rewards
            only_logged = [name for name, weight in weights.items() if not weight]
            plot_rewards(self.run.plots / "rewards.png", self._history, only_logged)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table; the progress bar is closed by now."""
        if self._report:
            print(f"\n{self._report}", flush=True)

    def _write_answers(self, after: Sequence[Prediction]) -> None:
        before = read_predictions(self.before_file)[0] if self.before_file.exists() else []
        if list(map(key, before)) != list(map(key, after)):
            before = []  # a resume changed the data: answers about other samples cannot be compared
        # Image paths of this machine: the answers before training may come from another one.
        here = ("image", "source")
        before = [one | {name: other[name] for name in here} for one, other in zip(before, after, strict=False)]
        answers = {"before": before, "after": after} if before else {"after": after}
        summaries = {when: summary(predictions) for when, predictions in answers.items()}
        self.run.evaluation.mkdir(parents=True, exist_ok=True)
        write_predictions(self.after_file, after)
        text = json.dumps(summaries, indent=2, allow_nan=False)
        write_atomic(self.run.evaluation / "metrics.json", text + "\n")
        self.run.plots.mkdir(parents=True, exist_ok=True)
        shown = {when: [one for one in ones if one["completion_index"] == 0] for when, ones in answers.items()}
        plot_examples(self.run.plots / "examples.png", shown)
        values = {when: sample_values(predictions) for when, predictions in answers.items()}
        first, *others = values
        changes = {
            when: differences(values[first], values[when], resamples=self.evaluator.resamples) for when in others
        }
        table = comparison_table(summaries, changes, BRIEF)
        each = self.evaluator.samples_each
        how = "answered greedily" if each == 1 else f"{each} completions per question"
        self._report = f"{len(self._samples)} held-out questions, {how}.\n\n{table}"

    def _predict(self, trainer: pl.Trainer, module: pl.LightningModule, what: str) -> list[Prediction]:
        return predict_on_all(trainer, cast(PolicyModule, module), self.evaluator, self._samples, what=what)
