"""Tests of what a sweep reports: failures and a table of results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grit_lightning.app.sweeps import labels_of, results_table
from grit_lightning.runs.results import write_results
from grit_lightning.runs.run_folder import RunFolder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    jobs = {"0": ["out=s", "name=a", "seed=0"], "2": ["out=s", "name=a", "seed=1"], "10": ["out=s", "name=a"]}
    for name, overrides in jobs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"overrides": overrides}))
    write_results(RunFolder(tmp_path / "0"), 3, {"heldout/accuracy": 0.75, "reward/total/mean": 2.0, "policy/kl": 0.1})
    write_results(RunFolder(tmp_path / "2"), 3, {"reward/total/mean": 1.23456})
    (tmp_path / "failures.jsonl").write_text("")
    return tmp_path


def test_the_table_has_a_row_for_each_job_in_order_and_what_differs(sweep):
    lines = [line.split() for line in results_table(sweep).splitlines()]
    assert lines[0] == ["job", "overrides", "step", "heldout/accuracy", "reward/total/mean"]
    assert lines[2:] == [
        ["0", "seed=0", "3", "0.75", "2"],
        ["2", "seed=1", "3", "-", "1.235"],
        ["10", "10", "unfinished", "-", "-"],
    ]


def test_without_runs_there_is_no_table(tmp_path):
    assert results_table(tmp_path) == results_table(tmp_path / "nowhere") == ""


def test_a_damaged_manifest_costs_a_run_its_label_only(sweep):
    (sweep / "2" / "manifest.json").write_text("{")
    assert labels_of([RunFolder(sweep / name) for name in ("0", "2")]) == ["name=a seed=0", "2"]


@pytest.mark.slow
def test_every_failing_job_is_reported_when_it_fails_and_again_at_the_end(cli, tmp_path):
    done = cli(
        "-m", "+debug=fast", "out=sweep", "threads=1", "data.val=null", "trainer.max_steps=1",
        "rollout.max_new_tokens=4",
        "seed=-1,1,-2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    for job, seed in ((0, -1), (2, -2)):
        told = [
            line for line in lines if f"job {job} (" in line and f"seed={seed}): seed is {seed}, expected 0 to" in line
        ]
        assert len(told) == 2, done.stderr
    assert "error: 2 jobs failed:" in lines
    assert lines.index("error: 2 jobs failed:") > next(
        i for i, line in enumerate(lines) if line.startswith("error: job 2")
    )
    assert "Traceback" not in done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("1 ")] == [["1", "1", "1"]]
    failures = [json.loads(line) for line in (tmp_path / "sweep" / "failures.jsonl").read_text().splitlines()]
    assert [one["job"] for one in failures] == [0, 2]
