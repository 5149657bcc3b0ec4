"""Tests that nothing non-finite reaches weights or checkpoints: skipped updates, the stop, refused weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file

from grit_lightning.app import config
from grit_lightning.errors import CheckpointError, ConfigError, NotFiniteError
from grit_lightning.model.finite import first_not_finite
from grit_lightning.training import grpo
from grit_lightning.training.checkpoint_weights import read_weights
from grit_lightning.training.guards.update_guard import UpdateGuard
from grit_lightning.training.policy_module import POLICY_PREFIX

OPTIONS = (
    "reward=digits", "rollout.num_generations=4", "rollout.max_new_tokens=16", "data.prompts_per_step=2",
    "scheduler=constant", "optimizer.lr=1e-3",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> None:
    import warnings

    warnings.filterwarnings("ignore", message="(?s).*(eval mode|many workers|litlogger).*")


class Recorder(L.Callback):
    """Records weights, optimizer steps and metrics after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self._note(module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        self._note(module)
        self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})
        assert all(value.grad is None for value in module.parameters())  # freed before the next rollout

    def _note(self, module: Any) -> None:
        self.weights.append({name: value.detach().clone() for name, value in module.policy.named_parameters()})


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def run(cfg: Any, steps: int) -> tuple[Recorder, L.Trainer]:
    values = config.check(cfg)
    module, data = instantiate(values["module"]), instantiate(values["data"])
    data.attach(module.backbone.encode)
    record = Recorder()
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[record], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    return record, trainer


def break_loss(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Make the loss of the given calls NaN; each step makes one call."""
    loss, count = grpo.policy_loss, iter(range(100))

    def broken(*args: Any, **kwargs: Any) -> Any:
        terms = loss(*args, **kwargs)
        return terms._replace(loss=terms.loss * torch.nan) if next(count) in calls else terms

    monkeypatch.setattr(grpo, "policy_loss", broken)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_step_that_is_not_finite_changes_no_weight_and_counts(monkeypatch, compose_config, optimizer: str) -> None:
    break_loss(monkeypatch, 1)
    record, trainer = run(compose_config(*OPTIONS, f"optimizer={optimizer}", "optimizer.lr=1e-3"), steps=3)
    before, one, two, three = record.weights
    assert [step["policy/skipped"] for step in record.metrics] == [0, 1, 0]
    assert same(one, two)
    assert not same(before, one)
    assert not same(two, three)
    assert trainer.global_step == 3
    if optimizer == "adamw":
        assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {2}


def test_the_other_iterations_of_a_skipped_step_are_left_out(monkeypatch, compose_config) -> None:
    break_loss(monkeypatch, 0)
    record, trainer = run(compose_config(*OPTIONS, "objective.iterations=2"), steps=2)
    assert [step["policy/skipped"] for step in record.metrics] == [1, 0]
    assert same(*record.weights[:2])
    assert trainer.global_step == 2
    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {2}


def test_several_in_a_row_end_training_with_step_and_tensor(monkeypatch, compose_config, caplog) -> None:
    break_loss(monkeypatch, 0, 2, 3)
    with pytest.raises(
        NotFiniteError, match=r"^training stopped at step 4: the loss is not finite in 2 steps in a row"
    ):
        run(compose_config(*OPTIONS, "module.max_skipped=2"), steps=6)
    assert [r.message for r in caplog.records if "skipped" in r.message] == [
        f"step {step}: the update is skipped, because the loss is not finite" for step in (1, 3)
    ]


def test_weights_that_an_update_made_infinite_end_training(compose_config) -> None:
    with pytest.raises(NotFiniteError, match=r"^training stopped at step 1: its update made model\S+ infinite or NaN"):
        run(compose_config(*OPTIONS, "optimizer.lr=1e38"), steps=2)


def test_supervised_fine_tuning_skips_them_too(monkeypatch, compose_config) -> None:
    from grit_lightning.model.policy import Policy

    forward, count = Policy._logprobs, iter(range(100))

    def broken(self: Policy, batch: Any) -> Any:
        tokens = forward(self, batch)
        return tokens._replace(logprobs_T=tokens.logprobs_T * torch.nan) if next(count) == 0 else tokens

    monkeypatch.setattr(Policy, "_logprobs", broken)
    record, _ = run(compose_config("task=sft", "data.prompts_per_step=2", "optimizer.lr=1e-3"), steps=2)
    assert [step["policy/skipped"] for step in record.metrics] == [1, 0]
    assert same(*record.weights[:2])


@pytest.mark.parametrize("option", ["sgd", "muon"])
def test_optimizers_without_masters_are_refused_for_bf16_weights(compose_config, option: str) -> None:
    with pytest.raises(ConfigError, match=r"^optimizer is \w+, which would lose small updates of bfloat16 weights: "):
        run(compose_config(*OPTIONS, f"optimizer={option}", "model.dtype=bfloat16"), steps=1)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^module\.max_skipped is 0, expected a whole number of at least 1$"):
        UpdateGuard(0)


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    named = [("ids", torch.tensor([1])), ("a", torch.ones(3)), ("b", torch.tensor([1.0, torch.nan])), ("c", -torch.inf)]
    assert first_not_finite(named[:2]) is None
    assert first_not_finite(named[:3]) == "b"
    assert first_not_finite([("empty", torch.empty(0)), ("c", torch.tensor([1.0, -torch.inf]).bfloat16())]) == "c"


def test_starting_weights_that_are_not_finite_are_refused_by_name(compose_config, tmp_path: Path) -> None:
    backbone = instantiate(compose_config("model.random_weights_seed=0").model)
    folder = tmp_path / "model"
    shutil.copytree(backbone.weights_folder(), folder)
    weights = load_file(folder / "model.safetensors")
    weights[next(name for name in weights if name.endswith("model.norm.weight"))][1] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    cfg = compose_config(f"model.checkpoint={folder}", "model.random_weights_seed=null")
    with pytest.raises(CheckpointError, match=rf"^{folder}: \S+\.norm\.weight has infinite numbers or NaN"):
        instantiate(cfg.model).load_model()


def test_weights_of_a_run_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"{POLICY_PREFIX}w": torch.tensor([torch.inf])}, "global_step": 3}, file)
    with pytest.raises(CheckpointError, match=rf"^{file}: w has infinite numbers or NaN"):
        read_weights(file)
