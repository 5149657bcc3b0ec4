"""Tests of ``task=sft`` from the command line: it learns, resumes exactly, and refuses samples without a target."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from grit_lightning.runs.run_folder import RunFolder

FAST = ("task=sft", "+debug=fast", "threads=1", "trainer.accelerator=cpu", "logger=csv", "~callbacks.demonstration")


def losses(run: Path) -> list[float]:
    """Return the logged losses of all steps, including those after a resume."""
    found = []
    for file in sorted(RunFolder(run).metrics.glob("version_*/metrics.csv")):
        with file.open() as stream:
            found += [float(row["policy/loss"]) for row in csv.DictReader(stream) if row["policy/loss"]]
    return found


def test_sft_learns_the_twenty_samples(cli, tmp_path: Path) -> None:
    done = cli(*FAST, "optimizer.lr=0.003", "trainer.max_steps=20", "data.prompts_per_step=4", "out=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr
    course = losses(tmp_path / "run")
    assert len(course) == 20
    assert course[-1] < 0.7 * course[0]
    assert not any((tmp_path / "run" / "rollouts").glob("*"))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_a_resumed_run_equals_an_uninterrupted_one(cli, tmp_path: Path) -> None:
    steps = ("scheduler=constant", "optimizer=muon", "out=run")
    assert cli(*FAST, *steps, "trainer.max_steps=4", "out=whole", cwd=tmp_path).returncode == 0
    assert cli(*FAST, *steps, "trainer.max_steps=2", cwd=tmp_path).returncode == 0
    done = cli("resume=run", "trainer.max_steps=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "run")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize("field", ["bboxs", "completion"])
def test_a_sample_without_anything_to_learn_is_refused_before_anything_is_written(
    cli, shapes: Path, field: str
) -> None:
    file = shapes / "shapes_vsr_train_10.jsonl"
    lines = file.read_text().splitlines()
    record = json.loads(lines[2])
    spoilt = {key: value for key, value in record.items() if key != "bboxs"}
    if field == "completion":
        spoilt["completion"] = 7
    file.write_text("\n".join([*lines[:2], json.dumps(spoilt), *lines[3:]]) + "\n")
    done = cli(*FAST, "data.root=mine", "out=run", cwd=shapes.parent)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"{file.name}:3" in done.stderr
    assert "completion" in done.stderr
    assert not (shapes.parent / "run").exists()
