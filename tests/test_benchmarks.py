"""Tests that the benchmarks run to their end; their timings are not checked."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]


def run(out: Path, *arguments: str) -> tuple[dict, str]:
    """Run benchmarks/gpu.py without a GPU and return what it wrote."""
    command = [sys.executable, "benchmarks/gpu.py", "--shrunk", "--device", "cpu", "--repeats", "1", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=400, env=environment, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (table,) = out.glob("*.md")
    return json.loads(table.with_suffix(".json").read_text()), table.read_text()


@pytest.mark.slow
def test_the_command_for_a_gpu_runs_to_its_end_without_one(tmp_path: Path) -> None:
    data, table = run(tmp_path, "--size", "3b", "--parts", "exactness", "steps")
    assert data["failed"] == {}
    assert len(data["exactness"]) == 7
    assert table.count("| ok |") == 7
    assert (data["size"]["dtype"], data["size"]["moments"]) == ("bfloat16", "bfloat16")
    assert len(data["steps"]["steps"]["ours"]) == 1
    assert "| update |" in table


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_steps_of_the_other_sizes_run_with_their_options(tmp_path: Path, size: str) -> None:
    data, table = run(tmp_path, "--size", size, "--parts", "steps")
    assert data["size"]["dtype"] == "float32"
    assert "completion tokens a second" in table


@pytest.mark.slow
def test_a_large_data_set_is_measured_and_its_killed_run_equals_an_undisturbed_one(tmp_path: Path) -> None:
    size = ["--samples", "300", "--images", "5", "--steps", "12", "--resumed", "18", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "benchmarks/large_data.py", *size],
        capture_output=True, text=True, timeout=400, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "large_data.json").read_text())["figures"]
    assert figures.pop("killed and resumed run is equal") is True
    assert (figures["samples"], figures["images"], figures["steps"]) == (300, 5, 12)
    assert all(value >= 0 for value in figures.values()), figures
    assert figures["first start, s"] > 1
    assert figures["resident, late MiB"] > 100


def test_a_part_that_fails_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    gpu = importlib.import_module("gpu")
    sizes = importlib.import_module("steps.sizes")
    benchmark = gpu.Benchmark(sizes.TINY, torch.device("cpu"), 1, tmp_path)

    def fails(_: object) -> None:
        raise SystemExit("error: out of memory")

    def works(_: object) -> tuple[str, dict]:
        assert "**fails failed**" in (tmp_path / "gpu_tiny_cpu.md").read_text()
        return "a table", {"x": 1}

    benchmark.run({"fails": fails, "works": works}, budget=100)
    assert benchmark.failed == {"fails": "SystemExit: error: out of memory"}
    assert "a table" in (tmp_path / "gpu_tiny_cpu.md").read_text()
    assert json.loads((tmp_path / "gpu_tiny_cpu.json").read_text())["works"] == {"x": 1}
    benchmark.run({"late": works}, budget=-1)
    assert "have passed" in benchmark.failed["late"]


def test_the_3b_size_is_the_recipe(compose_config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    size = importlib.import_module("steps.sizes").THREE_B
    cfg = compose_config("+experiment=qwen3b")
    assert (size.dtype, size.moments) == (cfg.model.dtype, cfg.optimizer.moments)
    assert size.gradient_checkpointing == cfg.model.gradient_checkpointing
    assert (size.pass_tokens, size.logits_chunk) == (cfg.module.max_tokens_per_pass, cfg.module.logits_chunk)
    assert (size.prompts, size.generations) == (cfg.data.prompts_per_step, cfg.rollout.num_generations)
    assert size.new_tokens == cfg.rollout.max_new_tokens


@pytest.mark.parametrize("arguments", [("gpu.py",), ("step.py", "huge")], ids=lambda given: given[0])
def test_a_benchmark_that_cannot_run_says_so_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, f"benchmarks/{arguments[0]}", *arguments[1:], "--out", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=REPOSITORY)
    assert done.returncode != 0
    assert "error: " in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
