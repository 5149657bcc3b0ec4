"""Tests of atomic writes, unused names and folders that are built once."""

import itertools
import os
import threading
from pathlib import Path

import pytest

from grit_lightning.errors import CheckpointError, DataError
from grit_lightning.system.files import (
    append_line,
    build_folder_once,
    free_path,
    replacing,
    replacing_folder,
    require_regular,
    sha256,
    versions_of,
    write_atomic,
    write_bytes_atomic,
)


def test_only_special_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for special in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(DataError) as error:
            require_regular(special)
        assert str(error.value) == f"{special}: is not a regular file"
    for other in (tmp_path / "file", tmp_path, tmp_path / "missing", Path("a\0b")):
        require_regular(other)


def test_write_atomic_replaces_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_old_content_stays_until_the_new_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_failure_keeps_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_leftovers_of_a_killed_writer_do_not_enter_the_next_write(tmp_path):
    (tmp_path / ".a.txt.tmp").write_text("left over")
    with replacing(tmp_path / "a.txt") as temporary, temporary.open("a") as file:
        file.write("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomic(tmp_path / "a.txt", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_bytes_are_written_unchanged(tmp_path):
    write_bytes_atomic(tmp_path / "a", b"\xff\r\n\0")
    assert (tmp_path / "a").read_bytes() == b"\xff\r\n\0"
    assert os.listdir(tmp_path) == ["a"]


def test_append_line_adds_one_line_and_syncs_it(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append((tmp_path / "log").read_bytes()), fsync(fd)))
    append_line(tmp_path / "log", "a")
    append_line(tmp_path / "log", "ü")
    assert (tmp_path / "log").read_bytes() == "a\nü\n".encode()
    assert synced == [b"a\n", "a\nü\n".encode()], "each line is on disk before the call returns"


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    folder = tmp_path / "below" / "folder"
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text("1")
        assert not folder.exists()
    assert (folder / "a").read_text() == "1"
    assert os.listdir(folder.parent) == ["folder"]


def test_an_empty_folder_is_replaced_and_a_full_one_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with replacing_folder(tmp_path / "empty") as temporary:
        (temporary / "a").write_text("1")
    assert os.listdir(tmp_path / "empty") == ["a"]
    with pytest.raises(OSError, match="not empty"), replacing_folder(tmp_path / "empty"):
        pass
    assert os.listdir(tmp_path / "empty") == ["a"]
    assert os.listdir(tmp_path) == ["empty"]


def test_a_failure_removes_the_temporary_folder_and_older_leftovers(tmp_path):
    (tmp_path / ".folder.tmp").mkdir()
    (tmp_path / ".folder.tmp" / "left").write_text("over")
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "folder") as temporary:
        assert os.listdir(temporary) == []
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_folder_is_synced_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    with replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("1")
        (temporary / "b").write_text("2")
    assert calls == ["fsync", "fsync", "fsync", "replace", "fsync"]


def test_versions_are_numbered_from_2_before_the_suffix(tmp_path):
    names = [path.name for path in itertools.islice(versions_of(tmp_path / "step.ckpt", ".ckpt"), 3)]
    assert names == ["step.ckpt", "step_v2.ckpt", "step_v3.ckpt"]
    assert next(itertools.islice(versions_of(tmp_path / "a"), 1, None)) == tmp_path / "a_v2"


def test_a_free_path_with_a_suffix_is_numbered_before_it(tmp_path):
    path = tmp_path / "step.ckpt"
    assert free_path(path, ".ckpt") == path
    path.touch()
    assert free_path(path, ".ckpt") == tmp_path / "step_v2.ckpt"
    (tmp_path / "step_v2.ckpt").touch()
    assert free_path(path, ".ckpt") == tmp_path / "step_v3.ckpt"
    path.unlink()
    assert free_path(path, ".ckpt") == path


def test_a_dot_in_the_name_of_a_folder_is_no_suffix(tmp_path):
    (tmp_path / "lr_0.5").mkdir()
    assert free_path(tmp_path / "lr_0.5") == tmp_path / "lr_0.5_v2"


def test_a_folder_is_built_once_and_its_lock_file_removed(tmp_path):
    folder, built = tmp_path / "below" / "model", []

    def build(path):
        built.append(path)
        with replacing_folder(path) as temporary:
            (temporary / "a").write_text("1")

    for _ in range(3):
        build_folder_once(folder, build)
    assert built == [folder]
    assert (folder / "a").read_text() == "1"
    assert os.listdir(folder.parent) == ["model"]


def test_a_folder_that_exists_is_not_built(tmp_path):
    (tmp_path / "model").mkdir()
    build_folder_once(tmp_path / "model", lambda path: pytest.fail(f"{path} was built again"))
    assert os.listdir(tmp_path) == ["model"]


def test_a_failed_build_is_repeated_by_the_next_call(tmp_path):
    def fail(path):
        raise OSError("no space")

    with pytest.raises(
        CheckpointError, match=r"model cannot be written \(no space\): set GRIT_LIGHTNING_CACHE to another folder$"
    ):
        build_folder_once(tmp_path / "model", fail)
    assert os.listdir(tmp_path) == []
    build_folder_once(tmp_path / "model", lambda path: path.mkdir())
    assert (tmp_path / "model").is_dir()


def test_simultaneous_callers_build_a_folder_once(tmp_path):
    built, barrier = [], threading.Barrier(4)

    def build(path):
        built.append(path)
        path.mkdir()

    def call():
        barrier.wait(timeout=30)
        build_folder_once(tmp_path / "model", build)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert built == [tmp_path / "model"]
