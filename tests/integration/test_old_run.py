"""Tests of a run folder of an earlier version, whose config holds former class names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from grit_lightning.system.paths import asset

OLD_RUN = Path(__file__).parents[1] / "support" / "run_of_1e49c7d"
"""Two steps of ``peft=lora peft.rank=2`` on the bundled samples, trained at commit 1e49c7d."""

QUICK = ("threads=1", "rollout.max_new_tokens=16")


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    return shutil.copytree(OLD_RUN, tmp_path / "moved" / "run")


def test_an_old_run_resumes(cli: Callable, old_run: Path, tmp_path: Path) -> None:
    done = cli(f"resume={old_run}", "trainer.max_steps=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert torch.load(old_run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert (old_run / "rollouts" / "step_000003.jsonl").is_file()


def test_an_old_run_is_evaluated(cli: Callable, old_run: Path, tmp_path: Path) -> None:
    done = cli("task=evaluate", f"run={old_run}", "task.max_samples=2", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (metrics,) = old_run.glob("eval/step_000002/metrics.json")
    assert json.loads(metrics.read_text())["metrics"]["overall"]["samples"] == 2


def test_an_old_run_is_exported(cli: Callable, old_run: Path, tmp_path: Path) -> None:
    done = cli("task=export", f"run={old_run}", "out=exported", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "exported").state_dict()
    before = AutoModelForImageTextToText.from_pretrained(asset("tiny"), dtype=torch.float32).state_dict()
    learned = torch.load(old_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    adapted = {name.removeprefix("policy.model.").partition(".lora_")[0] + ".weight" for name in learned}
    assert len(adapted) == len(learned) / 2
    assert before.keys() == exported.keys() > adapted
    scale = 128 / 2  # alpha / rank of its config
    for name, value in exported.items():
        expected = before[name]
        if name in adapted:
            a, b = (learned[f"policy.model.{name.removesuffix('.weight')}.lora_{half}.default.weight"] for half in "AB")
            expected = expected + scale * b @ a
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


def test_old_rollouts_are_scored_again_and_keep_their_scores(cli: Callable, old_run: Path, tmp_path: Path) -> None:
    done = cli("task=score", f"run={old_run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (scores,) = old_run.glob("scores/*/scores.jsonl")
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    assert len(lines) == 8
    assert all(line["new"]["rewards"] == line["old"]["rewards"] for line in lines)
