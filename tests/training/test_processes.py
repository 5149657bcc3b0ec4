"""Tests of several processes of a run: when one of them ends, all end, with the reason of the first."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from support.processes import start

TWO = (
    "strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "threads=1", "data.val=null", "reward=digits",
    "trainer.max_steps=300", "rollout.num_generations=2", "rollout.max_new_tokens=8", "data.prompts_per_step=2",
    "model.random_weights_seed=0", "callbacks.checkpoint.last_every_n_steps=1",
)  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_one_process_ends_all_end_with_its_reason(tmp_path: Path, rank: int, how: signal.Signals) -> None:
    out = tmp_path / "run"
    with start(*TWO, f"out={out}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 200
        while not (out / "rollouts" / "step_000003.jsonl").exists():
            assert process.poll() is None, process.stderr.read()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (child,) = children(process.pid)
        os.kill(child if rank else process.pid, how)
        began = time.monotonic()
        status = process.wait(timeout=60)
        while is_alive(child):
            assert time.monotonic() - began < 60
            time.sleep(0.1)
        error = process.stderr.read()
    assert "Traceback" not in error
    assert f"continue with resume={out}" in error
    done = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    if how == signal.SIGTERM:
        assert status == 128 + signal.SIGTERM
        assert f"SIGTERM: the {done} steps done are saved; continue with resume={out}" in error
    elif rank:
        assert status == 1
        assert f"error: process 1 was killed (SIGKILL); continue with resume={out}" in error
    else:
        assert f"error: process 0 has ended; continue with resume={out}" in error


@pytest.mark.slow
def test_a_process_that_fails_before_training_ends_the_others_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "one_fails.py").write_text(
        "import os\n"
        "def score(sample, completion):\n"
        "    return 1.0\n"
        "if os.environ.get('LOCAL_RANK') == '1':\n"
        "    raise ImportError('no such library here')\n"
    )
    reward = "+reward.components.mine={weight: 1, fn: {_target_: one_fails.score, _partial_: true}}"
    began = time.monotonic()
    with start(
        *TWO, reward, f"out={tmp_path / 'run'}", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        status, error = process.wait(timeout=120), process.stderr.read()
    assert status == 1
    assert time.monotonic() - began < 100
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "no such library here" in lines[0]
    assert "Traceback" not in error
