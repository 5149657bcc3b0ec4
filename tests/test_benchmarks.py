"""Tests that the benchmarks run to their end; their timings are not checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_command_for_a_gpu_runs_to_its_end_without_one(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--size", "tiny", "--device", "cpu", "--repeats", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=400, env=environment, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr[-3000:]
    data = json.loads((tmp_path / "gpu_tiny_cpu.json").read_text())
    assert len(data["exactness"]) == 2
    assert len(data["steps"]["ours"]) == 1
    table = (tmp_path / "gpu_tiny_cpu.md").read_text()
    assert table.count("| ok |") == 2
    assert "| update |" in table
    assert "completion tokens a second" in table


@pytest.mark.parametrize("arguments", [("gpu.py",), ("step.py", "huge")], ids=lambda given: given[0])
def test_a_benchmark_that_cannot_run_says_so_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, f"benchmarks/{arguments[0]}", *arguments[1:], "--out", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=REPOSITORY)
    assert done.returncode != 0
    assert "error: " in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
