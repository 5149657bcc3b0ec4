"""Tests of held-out evaluation in training: interval, logs and files, the best checkpoint, and early stopping."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.plugins.precision import Precision

from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.metrics import summary
from grit_lightning.evaluation.predictions import read_predictions
from grit_lightning.model.policy import Policy
from grit_lightning.training.callbacks import heldout
from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.callbacks.heldout import HeldoutEvaluation, has_finished
from grit_lightning.training.grpo import GRPOModule
from support.predicted import during_training, evaluator, grounded, record


class Bar:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, line: str) -> None:
        self.lines.append(line)


class Logger:
    def __init__(self) -> None:
        self.logged: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.logged[step] = metrics


@pytest.fixture(scope="module")
def parts(compose_config, backbone) -> tuple[Any, Any]:
    """A module with the tiny policy, and a data module with four held-out samples."""
    datamodule = instantiate(compose_config("data.val=[{shapes: 2}]").data)
    datamodule.attach(backbone.encode)
    policy = Policy.load(backbone, temperature=1.0, logits_chunk=64, entropy=False)
    return SimpleNamespace(policy=policy.train(), backbone=backbone), datamodule


@pytest.fixture
def trainer(parts, tmp_path, monkeypatch) -> SimpleNamespace:
    monkeypatch.setattr(StepCheckpoint, "keep_best", lambda self, trainer: None)
    checkpoint = StepCheckpoint(dirpath=str(tmp_path / "checkpoints"), every_n_steps=None, last_every_n_steps=None)
    return SimpleNamespace(
        datamodule=parts[1],
        global_step=0,
        max_steps=99,
        global_rank=0,
        world_size=1,
        is_global_zero=True,
        should_stop=False,
        precision_plugin=Precision(),
        progress_bar_callback=Bar(),
        loggers=[Logger()],
        callbacks=[checkpoint],
    )


def callback(out: Path, **changes: Any) -> HeldoutEvaluation:
    return HeldoutEvaluation(out=str(out), evaluator=evaluator(during_training=during_training(**changes)))


@pytest.fixture
def play(trainer, monkeypatch):
    """Return a function that plays training steps with the given accuracies and returns the steps kept as best."""

    def run(it: HeldoutEvaluation, accuracies: list[float | None]) -> list[int]:
        kept: list[int] = []
        checkpoint = trainer.callbacks[0]
        monkeypatch.setattr(checkpoint, "keep_best", lambda trainer: kept.append(trainer.global_step))
        it.setup(trainer, None, "fit")
        for accuracy in accuracies:
            trainer.global_step += 1
            found = [
                record(grounded(answer="1" if i < (accuracy or 0) * 4 else "7"), sample_id=f"f/{i}") for i in range(4)
            ]
            if accuracy is None:
                found = [one | {"scores": {"judge": None, "exact_match": 0.0}} for one in found]
            monkeypatch.setattr(heldout, "predict_on_all", lambda *_, found=found, **__: found)
            it.on_train_batch_end(trainer, SimpleNamespace(), None, None, 0)
            if trainer.should_stop:
                break
        return kept

    return run


class TestWithTheTinyModel:
    def test_every_n_steps_the_same_samples_are_answered_logged_and_stored(self, parts, trainer, tmp_path) -> None:
        module, _ = parts
        before = {name: value.clone() for name, value in module.policy.state_dict().items()}
        state = torch.get_rng_state()
        it = callback(tmp_path, max_samples=3)
        it.setup(trainer, module, "fit")
        for step in range(1, 5):
            trainer.global_step = step
            it.on_train_batch_end(trainer, module, None, None, 0)
        assert module.policy.training
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(value, before[name]) for name, value in module.policy.state_dict().items())
        folder = tmp_path / "eval" / "training"
        assert sorted(file.name for file in folder.iterdir()) == ["step_000002.jsonl", "step_000004.jsonl"]
        first, problems = read_predictions(folder / "step_000002.jsonl")
        assert problems == []
        assert [one["sample_id"] for one in first] == [sample.id for sample in it._between]
        assert len(first) == 3
        assert first == read_predictions(folder / "step_000004.jsonl")[0]
        logged = trainer.loggers[0].logged
        assert list(logged) == [2, 4]
        expected = {
            f"heldout/{name}/{key}": value
            for name, column in summary(first).items()
            for key, value in column.items()
            if value is not None
        }
        assert logged[2] == expected | {"step": 2.0}
        assert {"heldout/overall/accuracy", "heldout/tallyqa/grounded_format", "heldout/macro/tokens"} <= set(expected)

    def test_without_an_interval_no_sample_is_answered(self, parts, trainer, tmp_path) -> None:
        it = callback(tmp_path, every_n_steps=None, monitor="anything")
        it.setup(trainer, parts[0], "fit")
        trainer.global_step = 2
        it.on_train_batch_end(trainer, parts[0], None, None, 0)
        assert not (tmp_path / "eval").exists()

    @pytest.mark.parametrize(
        "monitor", ["accuracy", "overall/acuracy", "vsr2/accuracy", "overall/pass_at_k", "overall/", "a/b/c"]
    )
    def test_the_monitored_metric_is_checked_before_the_first_step(self, parts, trainer, tmp_path, monitor) -> None:
        with pytest.raises(
            ConfigError, match=r"evaluation\.during_training\.monitor is .*macro.*, and one of accuracy, "
        ) as info:
            callback(tmp_path, monitor=monitor).setup(trainer, parts[0], "fit")
        assert repr(monitor) in str(info.value)


class TestBest:
    def test_only_a_new_best_is_kept(self, trainer, play, tmp_path) -> None:
        kept = play(callback(tmp_path, every_n_steps=1), [0.25, 0.5, 0.5, 0.25, 0.75])
        assert kept == [1, 2, 5]
        assert trainer.progress_bar_callback.lines == [
            "held-out overall/accuracy after step 1: 0.250 on 4 questions, the best so far",
            "held-out overall/accuracy after step 2: 0.500 on 4 questions, the best so far",
            "held-out overall/accuracy after step 3: 0.500 on 4 questions, best 0.500 after step 2",
            "held-out overall/accuracy after step 4: 0.250 on 4 questions, best 0.500 after step 2",
            "held-out overall/accuracy after step 5: 0.750 on 4 questions, the best so far",
        ]

    def test_mode_min_keeps_the_lowest_value(self, play, tmp_path) -> None:
        assert play(callback(tmp_path, every_n_steps=1, mode="min"), [0.5, 0.75, 0.25]) == [1, 3]

    def test_a_resumed_training_knows_the_best_so_far(self, trainer, play, tmp_path) -> None:
        first = callback(tmp_path, every_n_steps=1, patience=3)
        play(first, [0.5, 0.25])
        second = callback(tmp_path, every_n_steps=1, patience=3)
        second.load_state_dict(first.state_dict())
        assert play(second, [0.25, 0.25, 0.75]) == []
        assert trainer.global_step == 4  # the third in a row without a better value

    def test_an_unscored_evaluation_is_neither_better_nor_worse(self, trainer, play, tmp_path) -> None:
        it = callback(tmp_path, every_n_steps=1, patience=2)
        assert play(it, [0.5, 0.25, None, None, 0.75]) == [1, 5]
        assert "heldout/overall/accuracy" not in trainer.loggers[0].logged[3]


class TestEarlyStop:
    def test_training_stops_after_patience_evaluations_without_improvement(
        self, trainer, play, tmp_path, caplog
    ) -> None:
        caplog.set_level(logging.INFO)
        it = callback(tmp_path, every_n_steps=1, patience=2)
        trainer.callbacks.append(it)
        assert not has_finished(trainer)
        play(it, [0.25, 0.5, 0.25, 0.5, 0.75])
        assert (trainer.global_step, trainer.should_stop) == (4, True)
        assert has_finished(trainer)
        assert caplog.messages == ["stopped after step 4: overall/accuracy has not improved since step 2"]

    def test_without_patience_training_continues(self, trainer, play, tmp_path) -> None:
        play(callback(tmp_path, every_n_steps=1), [0.5] * 6)
        assert (trainer.global_step, trainer.should_stop) == (6, False)


def test_an_evaluation_resets_the_judge_watch(trainer, play, tmp_path, monkeypatch) -> None:
    watched: list[str] = []
    module = GRPOModule.__new__(GRPOModule)
    object.__setattr__(module, "judge_watch", SimpleNamespace(reset=lambda: watched.append("reset")))
    it = callback(tmp_path, every_n_steps=1)
    it.setup(trainer, None, "fit")
    monkeypatch.setattr(heldout, "predict_on_all", lambda *_, **__: [record(grounded())])
    trainer.global_step = 1
    it.on_train_batch_end(trainer, module, None, None, 0)
    assert watched == ["reset"]


class TestResume:
    """What a stopped run left unanswered is answered when it is resumed."""

    @pytest.fixture
    def answered(self, trainer, monkeypatch) -> list[int]:
        """The steps after which held-out samples were answered."""
        steps: list[int] = []

        def predict(*_, **__):
            steps.append(trainer.global_step)
            return [record(grounded(), sample_id=f"f/{i}") for i in range(4)]

        monkeypatch.setattr(heldout, "predict_on_all", predict)
        return steps

    @pytest.mark.parametrize(("evaluated", "expected"), [(0, [4]), (2, [4]), (4, [])])
    def test_the_evaluation_of_the_checkpoints_step_is_made_up_for(
        self, trainer, tmp_path, answered, evaluated, expected
    ) -> None:
        it = callback(tmp_path)
        it.setup(trainer, None, "fit")
        it.load_state_dict({"best": 0.9, "best_step": 2, "worse_in_a_row": 0, "evaluated_step": evaluated})
        trainer.global_step = 4
        it.on_train_start(trainer, SimpleNamespace())
        assert answered == expected

    def test_a_checkpoint_of_an_earlier_version_has_been_evaluated(self, trainer, tmp_path, answered) -> None:
        it = callback(tmp_path)
        it.setup(trainer, None, "fit")
        it.load_state_dict({"best": 0.9, "best_step": 2, "worse_in_a_row": 0})
        trainer.global_step = 4
        it.on_train_start(trainer, SimpleNamespace())
        assert answered == []

    def test_a_run_that_had_stopped_early_does_not_train_on(self, trainer, tmp_path, answered) -> None:
        it = callback(tmp_path, patience=1)
        it.setup(trainer, None, "fit")
        it.load_state_dict({"best": 0.9, "best_step": 2, "worse_in_a_row": 1, "evaluated_step": 4})
        trainer.global_step = 4
        trainer.callbacks.append(it)
        it.on_train_start(trainer, SimpleNamespace())
        assert (answered, trainer.should_stop, has_finished(trainer)) == ([], True, True)

    def test_the_last_step_answers_each_sample_once(self, parts, trainer, tmp_path, monkeypatch) -> None:
        asked: list[list[str]] = []

        def predict(trainer, module, evaluator, samples, *, what):
            asked.append([sample.id for sample in samples])
            return [record(grounded(), sample_id=sample.id) for sample in samples]

        monkeypatch.setattr(heldout, "predict_on_all", predict)
        it = callback(tmp_path, max_samples=3)
        it.setup(trainer, None, "fit")
        trainer.global_step = trainer.max_steps = 2
        it.on_train_batch_end(trainer, SimpleNamespace(), None, None, 0)
        it.on_train_end(trainer, SimpleNamespace())
        assert [len(ids) for ids in asked] == [3, 1]
        after = [one["sample_id"] for one in read_predictions(tmp_path / "eval" / "after.jsonl")[0]]
        assert after == [sample.id for sample in it._ends]
        assert sorted(after) == sorted(asked[0] + asked[1])
