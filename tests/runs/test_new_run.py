"""Tests of the creation of a run folder."""

import json
import os
from pathlib import Path

import pytest

from grit_lightning.errors import ConfigError
from support.run_folders import INPUTS, create


def test_create_makes_the_folder_and_its_parents(tmp_path):
    run = create(tmp_path / "a" / "b")
    assert run.path == tmp_path / "a" / "b"
    assert (run.path / "config.yaml").read_text() == "seed: 0\n"
    assert (run.path / "composed.yaml").read_text() == "seed: ${oc.env:S,0}\n"
    assert json.loads((run.path / "manifest.json").read_text()) == {"seed": 0}


def test_a_folder_with_unrelated_files_can_become_a_run(tmp_path):
    (tmp_path / "train.log").write_text("hello")
    create(tmp_path)
    assert (tmp_path / "train.log").read_text() == "hello"


def test_a_run_folder_is_never_reused_for_another_run(run):
    with pytest.raises(ConfigError) as error:
        create(run.path, seed=1)
    assert str(error.value) == (
        f"{run.path} already holds a run: continue it with resume={run.path} or choose another out=…."
    )
    assert run.config_file.read_text() == "seed: 0\n"
    assert json.loads(run.manifest_file.read_text()) == {"seed": 0}


@pytest.mark.parametrize("name", ["config.yaml", "composed.yaml"])
def test_an_unrelated_config_file_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    (tmp_path / "notes.txt").write_text("mine, too")
    with pytest.raises(ConfigError, match=rf"{name} is in the way\.$"):
        create(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([name, "notes.txt"])
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_file_in_place_of_the_folder_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^out=.*file.* cannot be the run folder: .*\.$"):
        create(tmp_path / "file" / below)


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=r"cannot be the run folder: Permission denied \(.*run\)\.$"):
        create(tmp_path / "run")


@pytest.mark.parametrize("written", [["composed.yaml"], ["composed.yaml", "config.yaml", "inputs.json"]])
def test_a_folder_that_a_killed_process_left_without_a_manifest_is_used_again(tmp_path, written):
    for name in ("checkpoints", "rollouts"):
        (tmp_path / name).mkdir()
    for name in written:
        (tmp_path / name).write_text("half")
    run = create(tmp_path, seed=3)
    assert run.config_file.read_text() == "seed: 3\n"
    assert json.loads(run.inputs_file.read_text()) == INPUTS


def test_the_manifest_is_written_last(tmp_path, monkeypatch):
    def fail(source, target):
        if Path(target).name == "manifest.json":
            assert {"composed.yaml", "config.yaml", "inputs.json"} <= set(os.listdir(tmp_path))
            raise OSError(28, "No space left on device", str(target))
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigError, match=r"cannot be the run folder: No space left on device"):
        create(tmp_path)
