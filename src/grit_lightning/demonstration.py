"""What a training changed, shown: held-out samples answered before the first step and after the last one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from transformers import PreTrainedModel

from grit_lightning.data.datamodule import GroundedQADataModule
from grit_lightning.distributed import gathered
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation import (
    Evaluator,
    Prediction,
    comparison,
    read_predictions,
    summary,
    write_predictions,
)
from grit_lightning.files import write_atomic
from grit_lightning.module import GRPOModule
from grit_lightning.plots import plot_examples, plot_rewards
from grit_lightning.policy_module import PolicyModule
from grit_lightning.runs import RunFolder
from grit_lightning.types import Sample

_REWARD = re.compile(r"reward/(.+)/mean")
"""Logged keys of the rewards: the components by name, and ``total``."""


class Demonstration(Callback):
    """Answers the held-out samples with the run's own prompt before and after training, and draws what changed.

    It writes ``eval/before.jsonl``, ``eval/after.jsonl``, ``eval/metrics.json``, ``plots/rewards.png`` and
    ``plots/examples.png``, and prints a table. Decoding is greedy: training goes on as if nothing had been asked. A
    resumed run takes up what was answered before its first step. The end is the last step, ``trainer.max_steps``:
    a run that is stopped earlier shows nothing (``task=evaluate`` does).

    With several processes each answers a share of the samples.

    Args:
        out: the run folder.
        evaluator: how samples are answered.
        max_samples: of the held-out samples, evenly; ``None`` for all, 0 for none.
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
        """Predictions before the first step."""
        return self.run.evaluation / "before.jsonl"

    @property
    def after_file(self) -> Path:
        """Predictions after the last step."""
        return self.run.evaluation / "after.jsonl"

    def state_dict(self) -> dict[str, Any]:
        """The rewards so far."""
        return {"history": [dict(step) for step in self._history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rewards so far."""
        self._history = [dict(step) for step in state_dict["history"]]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read and check the held-out samples, before weights are loaded."""
        if self.max_samples != 0:
            self._samples = evenly(_datamodule(trainer).val_samples(), self.max_samples)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer before the first step."""
        if self._samples and trainer.global_step == 0:
            before = self._predict(
                trainer, cast(PolicyModule, pl_module), "answering held-out questions before training"
            )
            if trainer.is_global_zero:
                self.run.evaluation.mkdir(parents=True, exist_ok=True)
                write_predictions(self.before_file, before)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note this step's mean rewards."""
        matches = ((_REWARD.fullmatch(key), value) for key, value in trainer.callback_metrics.items())
        rewards = {match[1]: float(value) for match, value in matches if match}
        if rewards:
            self._history.append({"step": trainer.global_step, **rewards})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer after the last step, and write what changed."""
        if trainer.received_sigterm or not 0 < trainer.max_steps <= trainer.global_step:
            return
        if self._samples:
            after = self._predict(trainer, cast(PolicyModule, pl_module), "answering held-out questions after training")
            if trainer.is_global_zero:
                self._write_answers(after)
        if trainer.is_global_zero and self._history:
            self.run.plots.mkdir(parents=True, exist_ok=True)
            weights = cast(GRPOModule, pl_module).rewards.weights  # only it logs rewards
            only_logged = [name for name, weight in weights.items() if not weight]
            plot_rewards(self.run.plots / "rewards.png", self._history, only_logged)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table, once the progress bar is closed."""
        if self._report:
            print(f"\n{self._report}", flush=True)

    def _write_answers(self, after: Sequence[Prediction]) -> None:
        before = read_predictions(self.before_file) if self.before_file.exists() else []
        if [one["sample_id"] for one in before] == [one["sample_id"] for one in after]:
            before = self._with_pictures(before)
        else:
            before = []  # of other samples: a resume changed the data
        answers = {"before": before, "after": after} if before else {"after": after}
        summaries = {when: summary(predictions) for when, predictions in answers.items()}
        self.run.evaluation.mkdir(parents=True, exist_ok=True)
        write_predictions(self.after_file, after)
        text = json.dumps(summaries, indent=2, allow_nan=False)
        write_atomic(self.run.evaluation / "metrics.json", text + "\n")
        self.run.plots.mkdir(parents=True, exist_ok=True)
        plot_examples(self.run.plots / "examples.png", answers)
        self._report = f"{len(after)} held-out questions, answered greedily.\n\n{comparison(summaries)}"

    def _predict(self, trainer: pl.Trainer, module: PolicyModule, what: str) -> list[Prediction]:
        """The predictions of all processes, on each of them."""
        policy = module.policy
        assert policy is not None
        mine = self._samples[trainer.global_rank :: trainer.world_size]

        def predict(model: PreTrainedModel) -> list[Prediction]:
            with gathered(policy):
                return self.evaluator.predict(
                    model,
                    module.backbone,
                    mine,
                    _datamodule(trainer).prompt,
                    what=what,
                    quiet=not trainer.is_global_zero,
                )

        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            predictions: list[Prediction] = policy.eval()(predict)
        policy.train()
        if trainer.world_size > 1:
            of_ranks: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(of_ranks, predictions)
            predictions = self._with_pictures([one for of_rank in of_ranks for one in of_rank])
        return predictions

    def _with_pictures(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions in the order of the samples, each naming the files of this process.

        Held-out samples of the shapes world lie in a temporary folder of the process that answered them.
        """
        by_id = {one["sample_id"]: one for one in predictions}
        return [by_id[sample.id] | {"image": str(sample.image), "source": sample.source} for sample in self._samples]


def evenly(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """``count`` of the samples, at equal distances in their order; all where that is ``None`` or too many."""
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[index * len(samples) // count] for index in range(count)]


def _datamodule(trainer: pl.Trainer) -> GroundedQADataModule:
    return cast(GroundedQADataModule, trainer.datamodule)  # type: ignore[attr-defined]
