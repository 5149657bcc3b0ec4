"""Tests of stopped runs: one that is killed and resumed has the rollouts and weights of an uninterrupted one."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from support.processes import start

STEPS = 6
OPTIONS = (
    "reward=digits", "rollout.num_generations=3", "rollout.max_new_tokens=16", "rollout.stop=q",
    "data.prompts_per_step=3", f"trainer.max_steps={STEPS}", "callbacks.checkpoint.last_every_n_steps=2",
    "data.val=null", "objective.iterations=2", "threads=1", "model.random_weights_seed=0",
)  # fmt: skip


def assert_succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr[-3000:]


def stop_after(out: Path, step: int, with_signal: signal.Signals) -> tuple[int, str]:
    """Start a run, signal it once it has written the rollouts of ``step``, and return its exit status and stderr."""
    with start(*OPTIONS, f"out={out}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (out / "rollouts" / f"step_{step:06d}.jsonl").exists():
            assert process.poll() is None, process.stderr.read()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(with_signal)
        return process.wait(), process.stderr.read()


def records(out: Path) -> dict[str, list[dict]]:
    files = sorted((out / "rollouts").glob("*.jsonl"))
    return {file.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped(cli, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert_succeeded(cli(*OPTIONS, f"out={whole}", cwd=tmp_path))
    status, _ = stop_after(killed, 3, signal.SIGKILL)  # one step past the checkpoint of step 2: that step is done again
    assert status == -signal.SIGKILL
    first = records(killed)
    assert len(first) < STEPS
    assert_succeeded(cli(f"resume={killed}", cwd=tmp_path))
    assert records(killed) == records(whole)
    assert all(records(killed)[name] == lines for name, lines in first.items())
    checkpoints = [torch.load(out / "checkpoints" / "last.ckpt", weights_only=True) for out in (whole, killed)]
    assert [checkpoint["global_step"] for checkpoint in checkpoints] == [STEPS, STEPS]
    for name, value in checkpoints[0]["state_dict"].items():
        assert torch.equal(value, checkpoints[1]["state_dict"][name]), name
    resumes = (killed / "resumes.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in resumes] == [2]


@pytest.mark.slow
def test_sigterm_saves_the_run_and_says_how_to_resume(tmp_path: Path) -> None:
    out = tmp_path / "run"
    status, stderr = stop_after(out, 3, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    done = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 3 <= done < STEPS
    assert f"the {done} steps done are saved; continue with resume={out}" in stderr
    assert "Traceback" not in stderr
