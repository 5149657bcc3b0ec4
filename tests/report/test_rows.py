"""Tests of rollouts as rows and as text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grit_lightning.errors import DataError
from grit_lightning.report.rows import described, newest_run, rollout_rows, step_records, step_rows
from support.pages import completion, run_with


def test_one_row_a_completion_and_one_a_step(tmp_path: Path) -> None:
    unscored = completion("y", 1, step=2, reward=None, rewards={"answer_match": None}, boxes=[])
    run = run_with(tmp_path, {1: [completion("x")], 2: [completion("x", step=2), unscored]}).path
    rows = list(rollout_rows(run))
    assert [(row["step"], row["completion_index"], row["reward"], row["boxes"]) for row in rows] == [
        (1, 0, 1.0, 1), (2, 0, 1.0, 1), (2, 1, None, 0),
    ]  # fmt: skip
    assert rows[2]["reward/answer_match"] is None
    assert not any(isinstance(value, list | dict) for row in rows for value in row.values())
    assert list(step_rows(run)) == [
        {"step": 1, "completions": 1, "reward": 1.0, "with a box": 1},
        {"step": 2, "completions": 2, "reward": 1.0, "with a box": 1},
    ]


def test_records_of_a_step_are_ordered_by_prompt(tmp_path: Path) -> None:
    run = run_with(tmp_path, {3: [completion("x", slot=2), completion("y", slot=1)]}).path
    assert [one["slot"] for one in step_records(run)] == [1, 2]
    with pytest.raises(DataError, match="holds no rollouts of step 4"):
        step_records(run, 4)
    with pytest.raises(DataError, match="holds no rollouts"):
        step_records(tmp_path)


def test_the_newest_run_is_found_in_sweeps_too(tmp_path: Path) -> None:
    old, new = run_with(tmp_path / "a", {}), run_with(tmp_path / "sweep" / "3", {})
    os.utime(old.manifest_file, (1, 1))
    assert newest_run(tmp_path, tmp_path / "nowhere") == new.path
    with pytest.raises(DataError, match="no run below it"):
        newest_run(tmp_path / "nowhere")


def test_text_of_a_completion_has_no_control_characters(tmp_path: Path) -> None:
    text = described(completion("a\x1b[2J", rewards={"answer_match": None}))
    assert "\x1b" not in text
    assert "answer_match unscored" in text
    assert "advantage +0.500" in text
