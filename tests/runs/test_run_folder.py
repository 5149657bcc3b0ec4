"""Tests of the run folder: opening, and the record of resumes."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grit_lightning.errors import CheckpointError
from grit_lightning.runs.run_folder import open_run


class TestOpenRun:
    def test_open_run_returns_the_run_of_a_folder(self, run):
        assert open_run(str(run.path)) == run

    def test_a_missing_folder_is_a_checkpoint_error(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"nowhere is not a folder\.$"):
            open_run(tmp_path / "nowhere")

    def test_a_folder_without_a_manifest_is_no_run(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"is not a run folder: it has no manifest\.json\.$"):
            open_run(tmp_path)


class TestResumes:
    def test_each_resume_appends_one_record(self, run):
        run.append_resume(run.checkpoints / "last.ckpt", 12, ["trainer.max_steps=20"])
        run.append_resume(run.checkpoints / "step_000010.ckpt", 10, [])
        first, second = map(json.loads, run.resumes_file.read_text().splitlines())
        assert abs(datetime.now(UTC) - datetime.fromisoformat(first.pop("time"))).total_seconds() < 60
        assert first == {"checkpoint": "last.ckpt", "step": 12, "overrides": ["trainer.max_steps=20"], "changed": []}
        assert (second["checkpoint"], second["step"]) == ("step_000010.ckpt", 10)

    def test_a_run_that_begins_again_and_what_was_allowed_to_change_are_recorded(self, run):
        run.append_resume(None, 0, [], ["data: file a.jsonl has changed"])
        found = json.loads(run.resumes_file.read_text())
        assert (found["checkpoint"], found["changed"]) == (None, ["data: file a.jsonl has changed"])

    def test_resume_overrides_are_returned_in_order_and_unchanged(self, run):
        assert run.resume_overrides() == []
        folder = Path.home() / "photos"
        run.append_resume(run.checkpoints / "last.ckpt", 1, [f"data.images={folder}", "seed=1"])
        run.append_resume(run.checkpoints / "last.ckpt", 2, ["seed=2"])
        assert run.resume_overrides() == [f"data.images={folder}", "seed=1", "seed=2"]
