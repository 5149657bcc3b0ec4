"""Tests of output folders: claimed by one process, with the next free name by default."""

import os
import re
import subprocess
import sys

import pytest

from grit_lightning.app.output_folder import claimed, claimed_run, require_name
from grit_lightning.errors import ConfigError


def test_a_claimed_run_folder_exists_and_is_locked(tmp_path):
    with claimed_run(tmp_path / "runs" / "a", next_free=False) as folder:
        assert os.listdir(folder) == [".lock"]
        message = r"a is in use by another run: choose another out=… \(process \d+ on "
        with pytest.raises(ConfigError, match=message), claimed_run(folder, next_free=False):
            pytest.fail("two runs in one folder")


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="bad config"), claimed_run(tmp_path / "runs" / "deep" / "a", next_free=True):
        raise ValueError("bad config")
    assert os.listdir(tmp_path) == []


def test_a_run_that_wrote_something_keeps_its_folder(tmp_path):
    with claimed_run(tmp_path / "a", next_free=False) as folder:
        (folder / "manifest.json").write_text("{}")
    assert os.listdir(tmp_path / "a") == ["manifest.json"]


def test_a_default_folder_that_is_taken_gets_the_next_free_name(tmp_path):
    names = []
    for _ in range(3):
        with claimed_run(tmp_path / "a", next_free=True) as folder:
            (folder / "manifest.json").write_text("{}")
            names.append(folder.name)
    assert names == ["a", "a_v2", "a_v3"]


def test_processes_that_start_at_the_same_time_get_different_folders(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from grit_lightning.app.output_folder import claimed_run\n"
        "with claimed_run(Path(sys.argv[1]), next_free=True) as folder:\n"
        "    (folder / 'manifest.json').touch(); print(folder.name, flush=True); time.sleep(1)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a")]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert sorted(job.communicate(timeout=60)[0].strip() for job in jobs) == ["a", "a_v2", "a_v3", "a_v4"]


def test_processes_that_the_first_one_starts_learn_its_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    with claimed_run(tmp_path / "a", next_free=True) as chosen:
        monkeypatch.setenv("LOCAL_RANK", "1")
        with claimed_run(tmp_path / "another_second", next_free=True) as folder:
            assert folder == chosen == tmp_path / "a_v2"


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = r"^out=.*/file/a cannot be the run folder: "
    with pytest.raises(ConfigError, match=message), claimed_run(tmp_path / "file" / "a", next_free=False):
        pytest.fail("claimed")


def test_an_output_folder_is_written_by_one_process_at_a_time(tmp_path):
    with claimed(tmp_path / "scores"):
        message = f"another process is writing {tmp_path / 'scores'}: wait for it, or choose another out=…"
        with pytest.raises(ConfigError, match=re.escape(message)), claimed(tmp_path / "scores"):
            pytest.fail("claimed twice")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "a/b", "/tmp/x", "a\nb", "\x1b[31m", "x" * 201])
def test_a_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(ConfigError, match=re.escape(f"name is {name!r}, expected a name for a folder")):
        require_name(name)


@pytest.mark.parametrize("name", ["grit", "lr_0.5", "Versuch 3", "größer"])
def test_other_names_are_accepted(name):
    assert require_name(name) == name
