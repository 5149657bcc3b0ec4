"""Callback that reports, when training has finished, the held-out answers before and after it, and the curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from grit_lightning.evaluation.intervals import differences
from grit_lightning.evaluation.metrics import sample_values, summary
from grit_lightning.evaluation.predictions import Prediction, key, read_predictions
from grit_lightning.evaluation.tables import BRIEF, comparison_table
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import write_atomic
from grit_lightning.training.callbacks.heldout import has_finished
from grit_lightning.training.callbacks.plots import plot_examples, plot_loss, plot_rewards
from grit_lightning.training.step_metrics import reward_means


class Demonstration(Callback):
    """Reports the answers that :class:`HeldoutEvaluation` gave before the first and after the last step.

    It writes ``eval/metrics.json``, ``plots/examples.png`` and ``plots/rewards.png`` (after fine-tuning,
    ``plots/loss.png``), and prints a table. A resumed run compares with the answers from before its very first step. A
    run that ends before its last step has no report; ``task=evaluate`` evaluates its checkpoint.

    Args:
        out: the run folder.
        resamples: number of bootstrap resamples for the intervals of differences; 0 for no intervals.
    """

    def __init__(self, *, out: str, resamples: int) -> None:
        self.run = RunFolder(Path(out))
        self.resamples = resamples
        self._history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the mean rewards, or the loss, of all steps so far, for the checkpoint."""
        return {"history": [dict(step) for step in self._history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the values of earlier steps from a checkpoint."""
        self._history = [dict(step) for step in state_dict["history"]]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Store this step's mean rewards or, without rewards, its loss."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        values = reward_means(metrics) or ({"loss": metrics["policy/loss"]} if "policy/loss" in metrics else {})
        if values:
            self._history.append({"step": trainer.global_step, **values})

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write metrics and plots and print the table; the progress bar is closed by now."""
        if not trainer.is_global_zero or not has_finished(trainer):
            return
        self.run.plots.mkdir(parents=True, exist_ok=True)
        rewards = getattr(pl_module, "rewards", None)  # fine-tuning has none
        if self._history and rewards is not None:
            only_logged = [name for name, weight in rewards.weights.items() if not weight]
            plot_rewards(self.run.plots / "rewards.png", self._history, only_logged)
        elif self._history:
            plot_loss(self.run.plots / "loss.png", self._history)
        if self.run.after_file.is_file():
            print(f"\n{self._report(read_predictions(self.run.after_file)[0])}", flush=True)

    def _report(self, after: Sequence[Prediction]) -> str:
        """Write metrics and examples; return the table of differences."""
        before = read_predictions(self.run.before_file)[0] if self.run.before_file.is_file() else []
        if list(map(key, before)) != list(map(key, after)):
            before = []  # a resume changed the data: answers about other samples cannot be compared
        # Image paths of this machine: the answers before training may come from another one.
        here = ("image", "more_images", "source")
        before = [
            one | {name: value for name in here if (value := other.get(name)) is not None}
            for one, other in zip(before, after, strict=False)
        ]
        answers = {"before": before, "after": list(after)} if before else {"after": list(after)}
        summaries = {when: summary(predictions) for when, predictions in answers.items()}
        text = json.dumps(summaries, indent=2, allow_nan=False)
        write_atomic(self.run.before_and_after_file, text + "\n")
        shown = {when: [one for one in ones if one["completion_index"] == 0] for when, ones in answers.items()}
        plot_examples(self.run.plots / "examples.png", shown)
        values = {when: sample_values(predictions) for when, predictions in answers.items()}
        first, *others = values
        changes = {when: differences(values[first], values[when], resamples=self.resamples) for when in others}
        questions = len({one["sample_id"] for one in after})
        each = len(after) // questions
        how = "answered greedily" if each == 1 else f"{each} completions per question"
        return f"{questions} held-out questions, {how}.\n\n{comparison_table(summaries, changes, BRIEF)}"
