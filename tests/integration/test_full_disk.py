"""Tests of a disk that refuses to be written while a run trains: one line with the path and the reason."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

FAST = (
    "+debug=fast", "threads=1", "trainer.accelerator=cpu", "data.val=null", "rollout.max_new_tokens=4", "out=run",
)  # fmt: skip


def train(cwd: Path, largest_file: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run a training of a process that may write no file of more bytes than ``largest_file``."""
    return subprocess.run(
        [sys.executable, "-m", "grit_lightning", *(FAST if "task=export" not in overrides else ()), *overrides],
        cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("largest_file", "overrides", "file"),
    [
        (3_000_000, (), "run/checkpoints/last.ckpt"),
        (16_000, ("~callbacks.checkpoint", "~logger", "rollout.num_generations=12"), "run"),
        (20_000, ("~callbacks.checkpoint", "~callbacks.rollouts", "trainer.max_steps=40"), "run"),
    ],
    ids=["checkpoint", "rollouts", "tensorboard"],
)
def test_a_refusal_is_one_line_with_path_and_reason(tmp_path: Path, largest_file, overrides, file) -> None:
    done = train(tmp_path, largest_file, *overrides)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert file in line
    assert "cannot be written: File too large" in line


def test_weights_that_the_disk_refuses_are_one_line_too(tmp_path: Path) -> None:
    """Those of the cache, which the line names, and those of an export."""
    done = train(tmp_path, 3_000_000, "model.random_weights_seed=5", "model.freeze=[]")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "cannot be written (File too large): set GRIT_LIGHTNING_CACHE to another folder" in done.stderr
    assert train(tmp_path, 10**9).returncode == 0
    done = train(tmp_path, 3_000_000, "task=export", "run=run", "out=exported")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "exported cannot be written: File too large" in done.stderr


def test_a_group_set_to_null_is_one_line(tmp_path: Path) -> None:
    done = train(tmp_path, 10**9, "logger=null")
    assert done.stderr == "error: Config group override must be a string or a list. Got NoneType\n"
