"""Tests of two processes (gloo, CPU) against one: equal rollouts and weights, and interchangeable checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from grit_lightning.errors import CheckpointError
from grit_lightning.training.distributed import require_same_names

# Gradient descent with momentum: the change of the weights is linear in the gradients. Completions of different
# lengths, three prompts for two ranks, small passes: ranks differ in prompts, in passes and in generated length.
OPTIONS = (
    "optimizer=sgd", "optimizer.momentum=0.9", "scheduler=constant", "module.max_grad_norm=1e9", "reward=digits",
    "objective.kl=k1",
    "objective.beta=0.1", "rollout.num_generations=3", "rollout.max_new_tokens=16", "rollout.stop=q",
    "data.prompts_per_step=3", "module.max_tokens_per_pass=300", "trainer.max_steps=2", "trainer.accelerator=cpu",
    "data.val=null", "logger=csv", "threads=1", "model.random_weights_seed=0",
)  # fmt: skip


def train(out: Path, *overrides: str, options: Sequence[str] = OPTIONS) -> dict[str, torch.Tensor]:
    """Run the application and return the weights of its last checkpoint."""
    command = [sys.executable, "-m", "grit_lightning", *options, f"out={out}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def rollouts(out: Path, step: int) -> list[dict]:
    return [json.loads(line) for line in (out / "rollouts" / f"step_{step:06d}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("single") / "run"
    return out, train(out)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_equal_one(tmp_path: Path, single, strategy: str) -> None:
    expected_run, expected = single
    out = tmp_path / "run"
    weights = train(out, f"strategy={strategy}", "trainer.devices=2")
    for step in (1, 2):
        ours, theirs = rollouts(out, step), rollouts(expected_run, step)
        assert [line["token_ids"] for line in ours] == [line["token_ids"] for line in theirs]
        assert [line["advantage"] for line in ours] == pytest.approx([line["advantage"] for line in theirs])
    assert len({len(line["token_ids"]) for line in rollouts(out, 1)}) > 1
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    metrics = [(run / "metrics" / "version_0" / "metrics.csv").read_text().splitlines() for run in (out, expected_run)]
    header = metrics[0][0].split(",")
    for ours, theirs in zip(*(lines[1:] for lines in metrics), strict=True):
        values = [dict(zip(header, map(float, line.split(",")), strict=True)) for line in (ours, theirs)]
        for key in (
            "policy/loss",
            "policy/kl",
            "policy/entropy",
            "policy/grad_norm",
            "reward/total/mean",
            "reward/total/std",
            "rollout/length/mean",
        ):
            assert values[0][key] == pytest.approx(values[1][key], rel=1e-4, abs=1e-7), key


@pytest.mark.slow
def test_sharded_adapters_equal_those_of_one_process(tmp_path: Path) -> None:
    options = ("peft=lora", "peft.rank=4")
    one = train(tmp_path / "one", *options)
    two = train(tmp_path / "two", *options, "strategy=fsdp", "trainer.devices=2")
    assert one.keys() == two.keys()
    assert all(".lora_" in name for name in one)
    assert max(value.abs().max() for name, value in one.items() if "lora_B" in name) > 0.01
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


FSDP = ("strategy=fsdp", "trainer.devices=2")
AS_FSDP = ("trainer.strategy={_target_: grit_lightning.training.distributed.FSDPStrategy}", "trainer.devices=2")
AS_ONE = ("trainer.strategy=auto", "trainer.devices=1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "goes_on"),
    [(FSDP, ()), (FSDP, AS_ONE), ((), AS_FSDP)],
    ids=["sharded_to_sharded", "sharded_to_one", "one_to_sharded"],
)
def test_a_run_is_continued_on_other_hardware(tmp_path: Path, single, start, goes_on) -> None:
    _, expected = single
    out = tmp_path / "run"
    train(out, *start, "trainer.max_steps=1")
    command = [sys.executable, "-m", "grit_lightning", f"resume={out}", "trainer.max_steps=2", *goes_on]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_sharded_masters_and_moments_of_bf16_weights_are_restored_bit_by_bit(tmp_path: Path) -> None:
    others = [option for option in OPTIONS if not option.startswith("optimizer")]
    options = (*others, *FSDP, "model.dtype=bfloat16", "optimizer.moments=bfloat16", "optimizer.lr=1e-4")
    whole = train(tmp_path / "whole", options=options)
    out = tmp_path / "run"
    train(out, "trainer.max_steps=1", options=options)
    command = [sys.executable, "-m", "grit_lightning", f"resume={out}", "trainer.max_steps=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    saved = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    state = next(iter(saved["optimizer_states"][0]["state"].values()))
    assert {key: value.dtype for key, value in state.items() if key != "step"} == {
        "remainder": torch.bfloat16, "exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16,
    }  # fmt: skip
    for name, value in whole.items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(saved["state_dict"][name], value), name


@pytest.mark.slow
def test_an_update_is_skipped_on_all_processes_if_one_has_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out, "strategy=ddp", "trainer.devices=2", "module._target_=support.not_finite.OnTheSecondProcess")
    header, *rows = [line.split(",") for line in (out / "metrics/version_0/metrics.csv").read_text().splitlines()]
    assert [row[header.index("policy/skipped")] for row in rows] == ["1.0", "0.0"]


def test_a_checkpoint_of_another_model_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"2 weight names differ, e\.g\. a"):
        require_same_names({"a", "b"}, {"b", "c"})
