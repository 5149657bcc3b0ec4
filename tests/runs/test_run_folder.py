"""Tests of the run folder: creation, opening, and the record of resumes."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.runs.run_folder import open_run
from support.run_folders import create


class TestCreate:
    def test_create_makes_the_folder_and_its_parents(self, tmp_path):
        run = create(tmp_path / "a" / "b")
        assert run.path == tmp_path / "a" / "b"
        assert (run.path / "config.yaml").read_text() == "seed: 0\n"
        assert (run.path / "composed.yaml").read_text() == "seed: ${oc.env:S,0}\n"
        assert json.loads((run.path / "manifest.json").read_text()) == {"seed": 0}

    def test_a_folder_with_unrelated_files_can_become_a_run(self, tmp_path):
        (tmp_path / "train.log").write_text("hello")
        create(tmp_path)
        assert (tmp_path / "train.log").read_text() == "hello"

    def test_a_run_folder_is_never_reused_for_another_run(self, run):
        with pytest.raises(ConfigError) as error:
            create(run.path, seed=1)
        assert str(error.value) == (
            f"{run.path} already holds a run: continue it with resume={run.path} or choose another out=…."
        )
        assert run.config_file.read_text() == "seed: 0\n"
        assert json.loads(run.manifest_file.read_text()) == {"seed": 0}

    def test_one_of_two_simultaneous_processes_is_refused(self, tmp_path, monkeypatch):
        # Both have looked, and neither has seen the other's manifest yet.
        monkeypatch.setattr(Path, "exists", lambda self: False)
        create(tmp_path)
        with pytest.raises(ConfigError, match="already holds a run"):
            create(tmp_path, seed=1)
        assert json.loads((tmp_path / "manifest.json").read_text()) == {"seed": 0}

    @pytest.mark.parametrize("name", ["config.yaml", "composed.yaml"])
    def test_an_unrelated_config_file_is_not_overwritten(self, tmp_path, name):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ConfigError, match=rf"{name} is in the way\.$"):
            create(tmp_path)
        assert os.listdir(tmp_path) == [name]
        assert (tmp_path / name).read_text() == "mine"

    @pytest.mark.parametrize("below", ["", "sub"])
    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path, below):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match=r"^out=.*file.* cannot be the run folder: .*\.$"):
            create(tmp_path / "file" / below)

    def test_a_folder_without_write_permission_is_refused(self, tmp_path, monkeypatch):
        def refuse(self, *_, **__):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(ConfigError, match=r"cannot be the run folder: Permission denied \(.*run\)\.$"):
            create(tmp_path / "run")


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
        assert first == {"checkpoint": "last.ckpt", "step": 12, "overrides": ["trainer.max_steps=20"]}
        assert (second["checkpoint"], second["step"]) == ("step_000010.ckpt", 10)

    def test_resume_overrides_are_returned_in_order_and_unchanged(self, run):
        assert run.resume_overrides() == []
        folder = Path.home() / "photos"
        run.append_resume(run.checkpoints / "last.ckpt", 1, [f"data.images={folder}", "seed=1"])
        run.append_resume(run.checkpoints / "last.ckpt", 2, ["seed=2"])
        assert run.resume_overrides() == [f"data.images={folder}", "seed=1", "seed=2"]
