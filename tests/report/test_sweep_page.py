"""Tests of the page about a sweep."""

from __future__ import annotations

import json
from pathlib import Path

from grit_lightning.report.sweep_page import sweep_page
from grit_lightning.runs.results import write_results
from grit_lightning.runs.run_folder import RunFolder
from support.pages import NASTY, completion, parsed, run_with


def sweep(tmp_path: Path, labels: list[str]) -> list[tuple[RunFolder, str]]:
    jobs = []
    for index, label in enumerate(labels):
        run = run_with(tmp_path / str(index), {1: [completion("x")], 2: [completion("y")]})
        jobs.append((RunFolder(run.path.rename(tmp_path / f"job{index}")), label))
    return jobs


def test_jobs_are_rows_with_their_metrics_and_lines_of_their_own(tmp_path: Path) -> None:
    jobs = sweep(tmp_path, ["seed=0", "seed=1", "seed=2"])
    write_results(jobs[0][0], 2, {"heldout/accuracy": 0.75, "policy/kl": 0.5})
    write_results(jobs[1][0], 2, {"heldout/accuracy": 0.25})
    jobs[0][0].report_file.write_text("a page")
    failures = [{"job": 3, "overrides": ["seed=x"], "reason": "seed is 'x'"}]
    tags = parsed(sweep_page(tmp_path, jobs, failures))
    text = " ".join(" ".join(tags.text).split())
    assert "3 jobs, 2 of them finished" in text
    assert "job0 seed=0 2 0.75 0.5 job1 seed=1 2 0.25 job2 seed=2 unfinished" in text
    assert "job 3 (seed=x) failed: seed is 'x'" in text
    links = [attrs["href"] for tag, attrs in tags.tags if tag == "a" and not str(attrs["href"]).startswith("#")]
    assert links == ["job0/report.html"]
    lines = [attrs["data-label"] for tag, attrs in tags.tags if tag == "path"]
    assert lines == ["job0: seed=0", "job1: seed=1", "job2: seed=2"]


def test_overrides_and_reasons_are_inert(tmp_path: Path) -> None:
    plain = parsed(sweep_page(tmp_path, sweep(tmp_path / "a", ["x", "y"]), [{"job": 0, "overrides": [], "reason": ""}]))
    for index, nasty in enumerate(NASTY):
        failures = json.loads(json.dumps([{"job": 0, "overrides": [nasty], "reason": nasty}]))
        page = sweep_page(tmp_path, sweep(tmp_path / f"b{index}", [nasty, "y"]), failures)
        assert [tag for tag, _ in parsed(page).tags] == [tag for tag, _ in plain.tags]
        assert "\x1b" not in page
