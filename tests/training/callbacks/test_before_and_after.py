"""Tests of the answers before and after training: when they are written, and that training is not affected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hydra.utils import instantiate
from lightning.pytorch.plugins.precision import Precision

from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.evaluation.metrics import summary
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.evaluation.predictions import read_predictions as read_with_problems
from grit_lightning.model.policy import Policy
from grit_lightning.training.callbacks.before_and_after import Demonstration
from grit_lightning.training.callbacks.heldout import HeldoutEvaluation
from support.predicted import during_training, evaluator

STEPS = 4


@pytest.fixture(scope="module")
def parts(compose_config, backbone) -> tuple[Any, Any]:
    """A module with the tiny policy, and a data module with four held-out samples."""
    datamodule = instantiate(compose_config("data.val=[{shapes: 2}]").data)
    datamodule.attach(backbone.encode)
    policy = Policy.load(backbone, temperature=1.0, logits_chunk=64, entropy=False)
    rewards = SimpleNamespace(weights={"answer": 1.0, "length": 0.0})
    return SimpleNamespace(policy=policy.train(), backbone=backbone, rewards=rewards), datamodule


@pytest.fixture
def module(parts) -> Any:
    return parts[0]


@pytest.fixture
def trainer(parts) -> SimpleNamespace:
    return SimpleNamespace(
        datamodule=parts[1],
        global_step=0,
        max_steps=STEPS,
        global_rank=0,
        world_size=1,
        is_global_zero=True,
        precision_plugin=Precision(),
        callback_metrics={},
        callbacks=[],
    )


class Both:
    """The callback that answers and the one that reports, with the hooks of a callback."""

    def __init__(self, out: Path, **changes: Any) -> None:
        options = during_training(**{"every_n_steps": None} | changes)
        self.heldout = HeldoutEvaluation(out=str(out), evaluator=evaluator(during_training=options))
        self.report = Demonstration(out=str(out), resamples=100)

    def __getattr__(self, hook: str) -> Any:
        def call(*arguments: Any) -> None:
            for callback in (self.report, self.heldout):  # in Lightning's order: checkpoints last
                getattr(callback, hook)(*arguments)

        return call

    def state_dict(self) -> dict[str, Any]:
        return self.report.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.report.load_state_dict(state)


def demonstration(out: Path, **changes: Any) -> Both:
    return Both(out, **changes)


def read_predictions(path: Path) -> list[Prediction]:
    ones, problems = read_with_problems(path)
    assert problems == []
    return ones


def play(shown: Both, trainer: SimpleNamespace, module: Any, start: int = 0, end: int = STEPS) -> Both:
    """Call the hooks of a training from step ``start`` to step ``end``."""
    trainer.global_step = start
    shown.setup(trainer, module, "fit")
    shown.on_train_start(trainer, module)
    for step in range(start + 1, end + 1):
        trainer.global_step = step
        trainer.callback_metrics = {
            "reward/total/mean": torch.tensor(step / 2),
            "reward/count/mean": torch.tensor(1.0),
            "reward/total/std": torch.tensor(9.0),
            "policy/loss": torch.tensor(3.0),
        }
        shown.on_train_batch_end(trainer, module, None, None, 0)
    shown.on_train_end(trainer, module)
    shown.on_fit_end(trainer, module)
    return shown


def written(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def moved(predictions: bytes) -> bytes:
    """Return predictions as of a process with another cache, whose folder of held-out images no longer exists."""
    changed = predictions.replace(b"/shapes/", b"/gone/")
    assert changed != predictions
    return changed


def test_a_whole_training_leaves_answers_metrics_and_pictures(tmp_path, trainer, module, capsys) -> None:
    play(demonstration(tmp_path), trainer, module)
    files = ["eval/after.jsonl", "eval/before.jsonl", "eval/metrics.json", "plots/examples.png", "plots/rewards.png"]
    assert written(tmp_path) == files
    answers = {when: read_predictions(tmp_path / "eval" / f"{when}.jsonl") for when in ("before", "after")}
    ids = [sample.id for sample in trainer.datamodule.val_samples()]
    assert [[one["sample_id"] for one in ones] for ones in answers.values()] == [ids, ids]
    assert len(ids) == 4
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text()) == {
        when: summary(ones) for when, ones in answers.items()
    }
    output = capsys.readouterr()
    assert output.out.startswith("\n4 held-out questions, answered greedily.\n\n")
    assert re.search(r"\n +before +after +after - before\naccuracy ", output.out)
    assert output.err == ""


def test_the_demonstration_leaves_weights_modes_and_random_state_unchanged(tmp_path, trainer, module) -> None:
    torch.manual_seed(3)
    random_state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in module.policy.state_dict().items()}
    shown = demonstration(tmp_path)
    shown.setup(trainer, module, "fit")
    shown.on_train_start(trainer, module)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(child.training for child in module.policy.modules())
    assert torch.is_grad_enabled()
    for name, value in module.policy.state_dict().items():
        assert torch.equal(value, weights[name])
    assert all(parameter.grad is None for parameter in module.policy.parameters())


def test_answers_are_generated_in_eval_mode_under_the_trainers_precision(
    tmp_path, trainer, module, monkeypatch
) -> None:
    entered, modes = [], []

    class Noting(Precision):
        def forward_context(self):
            entered.append(True)
            return super().forward_context()

    trainer.precision_plugin = Noting()
    predict = Evaluator.predict

    def noting(self, model, *rest, **options):
        modes.append((model.training, torch.is_grad_enabled()))
        return predict(self, model, *rest, **options)

    monkeypatch.setattr(Evaluator, "predict", noting)
    play(demonstration(tmp_path), trainer, module)
    assert modes == [(False, False)] * 2
    assert len(entered) == 2


@pytest.mark.slow
def test_a_resumed_run_compares_with_the_answers_before_its_first_step(tmp_path, trainer, module, capsys) -> None:
    first = play(demonstration(tmp_path), trainer, module, end=2)  # stopped before the last step
    assert written(tmp_path) == ["eval/before.jsonl"]
    assert capsys.readouterr().out == ""
    elsewhere = moved((tmp_path / "eval" / "before.jsonl").read_bytes())
    (tmp_path / "eval" / "before.jsonl").write_bytes(elsewhere)
    resumed = demonstration(tmp_path)
    resumed.load_state_dict(first.state_dict())
    play(resumed, trainer, module, start=2)
    assert (tmp_path / "eval" / "before.jsonl").read_bytes() == elsewhere
    assert set(json.loads((tmp_path / "eval" / "metrics.json").read_text())) == {"before", "after"}
    assert resumed.state_dict()["history"] == [
        {"step": step, "total": step / 2, "count": 1.0} for step in range(1, STEPS + 1)
    ]


def test_the_state_can_be_saved_with_a_checkpoint(tmp_path, trainer, module) -> None:
    shown = play(demonstration(tmp_path, before_and_after=0), trainer, module)
    torch.save(shown.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == shown.state_dict()


def test_without_earlier_answers_there_is_no_before_column(tmp_path, trainer, module, capsys) -> None:
    play(demonstration(tmp_path), trainer, module, start=2)
    assert written(tmp_path) == ["eval/after.jsonl", "eval/metrics.json", "plots/examples.png", "plots/rewards.png"]
    assert set(json.loads((tmp_path / "eval" / "metrics.json").read_text())) == {"after"}
    assert "before" not in capsys.readouterr().out


def test_answers_to_other_questions_are_not_compared(tmp_path, trainer, module) -> None:
    play(demonstration(tmp_path, before_and_after=2), trainer, module, end=2)
    play(demonstration(tmp_path), trainer, module, start=2)
    assert len(read_predictions(tmp_path / "eval" / "before.jsonl")) == 2
    assert set(json.loads((tmp_path / "eval" / "metrics.json").read_text())) == {"after"}


@pytest.mark.parametrize("change", [{"max_steps": STEPS + 1}, {"max_steps": -1}])
def test_a_stopped_run_shows_no_demonstration(tmp_path, trainer, module, capsys, change: dict) -> None:
    vars(trainer).update(change)
    play(demonstration(tmp_path), trainer, module)
    assert written(tmp_path) == ["eval/before.jsonl"]
    assert capsys.readouterr().out == ""


def test_without_held_out_samples_there_are_still_curves(tmp_path, trainer, module, capsys) -> None:
    play(demonstration(tmp_path, before_and_after=0), trainer, module)
    assert written(tmp_path) == ["plots/rewards.png"]
    assert capsys.readouterr().out == ""


def test_a_training_without_rewards_has_a_plot_of_its_loss(tmp_path, trainer, module) -> None:
    shown = demonstration(tmp_path, before_and_after=0)
    module = SimpleNamespace(policy=module.policy, backbone=module.backbone)
    trainer.callback_metrics = {"policy/loss": torch.tensor(1.0)}
    shown.setup(trainer, module, "fit")
    trainer.global_step = STEPS
    shown.on_train_batch_end(trainer, module, None, None, 0)
    shown.on_train_end(trainer, module)
    shown.on_fit_end(trainer, module)
    assert written(tmp_path) == ["plots/loss.png"]
    assert shown.state_dict()["history"] == [{"step": STEPS, "loss": 1.0}]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_share_the_questions_and_the_first_one_writes(tmp_path, trainer, module, monkeypatch, rank) -> None:
    play(demonstration(tmp_path / "one"), trainer, module, end=1)
    alone = read_predictions(tmp_path / "one" / "eval" / "before.jsonl")

    def all_gather_object(into: list, mine: list) -> None:
        groups = [[one] for one in alone]
        assert sorted(mine, key=groups.index) == groups[rank::2]
        others = groups[1 - rank :: 2]
        into[:] = [mine, others] if rank == 0 else [others, mine]

    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    vars(trainer).update(world_size=2, global_rank=rank, is_global_zero=rank == 0)
    play(demonstration(tmp_path / "two"), trainer, module)
    if rank == 0:
        assert read_predictions(tmp_path / "two" / "eval" / "before.jsonl") == alone
        assert "plots/examples.png" in written(tmp_path / "two")
    else:
        assert written(tmp_path / "two") == []
