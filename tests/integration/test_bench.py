"""Tests of task=bench: one table for several prompts, the same after kills, and one line for what cannot be done."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SMALL = ("task=bench", "suite=shapes", "threads=1", "trainer.accelerator=cpu", "data.val=[{shapes: 5, seed: 1}]",
         "evaluation.resamples=50", "evaluation.batch_size=1", "rollout.max_new_tokens=40")  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    done = cli(*SMALL, "out=whole", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout
    return folder / "whole"


def answers(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*/*.jsonl"))


def test_the_table_has_the_model_under_each_prompt(undisturbed: Path) -> None:
    page = (undisturbed / "bench.md").read_text()
    assert page.startswith("# Benchmark: shapes world\n\n    python -m grit_lightning task=evaluate data=shapes20 ")
    assert "| | own | plain | cot | plain - own | cot - own |" in page
    assert "greedy, up to 40 tokens, judged by exact match, 10 samples" in page
    assert str(undisturbed) not in page
    with (undisturbed / "bench.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if (row["metric"], row["dataset"]) == ("accuracy", "overall")]
    assert [(row["run"], row["samples"]) for row in rows] == [("own", "10"), ("plain", "10"), ("cot", "10")]
    assert "a comparison of grit_lightning" in (undisturbed / "report.html").read_text()


def test_it_goes_on_after_kills_with_the_same_table(cli: Any, undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grit_lightning", *SMALL, "out=killed"]
    for least in (3, 14):  # within the first and the second evaluation
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and answers(tmp_path / "killed") < least:
            time.sleep(0.02)
        assert process.poll() is None, "it was to be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed" / "bench.md").exists()
    done = cli(*SMALL, "out=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("bench.md", "bench.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task.prompts=[plain,plain]",), "task.prompts is ['plain', 'plain'], expected one or more different prompts"),
        (("task.prompts=[]",), "task.prompts is [], expected one or more different prompts"),
        (("task.prompts=[nonsense]",), "prompt=nonsense is unknown"),
        (("suite=nonsense",), "suite=nonsense is unknown: the options of suite are grit, shapes"),
        (("run=nowhere",), "nowhere is not a folder"),
        (("task.max_samples=0",), "task.max_samples is 0, expected at least 1, or null"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli: Any, tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    done = cli(*SMALL, *overrides, "out=x", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
