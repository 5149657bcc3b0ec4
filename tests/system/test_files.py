import os

import pytest

from grit_lightning.system.files import append_line, replacing, replacing_folder, sha256, write_atomic


def test_write_atomic_replaces_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_old_content_stands_until_the_new_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_failure_keeps_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_does_not_leak_into_the_next_write(tmp_path):
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


def test_append_line(tmp_path):
    append_line(tmp_path / "log", "a")
    append_line(tmp_path / "log", "b")
    assert (tmp_path / "log").read_text() == "a\nb\n"


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_appears_whole(tmp_path):
    folder = tmp_path / "below" / "folder"
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text("1")
        assert not folder.exists()
    assert (folder / "a").read_text() == "1"
    assert os.listdir(folder.parent) == ["folder"]


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with replacing_folder(tmp_path / "empty") as temporary:
        (temporary / "a").write_text("1")
    assert os.listdir(tmp_path / "empty") == ["a"]
    with pytest.raises(OSError, match="not empty"), replacing_folder(tmp_path / "empty"):
        pass
    assert os.listdir(tmp_path / "empty") == ["a"]
    assert os.listdir(tmp_path) == ["empty"]


def test_a_failure_and_what_a_killed_writer_left_leave_no_folder(tmp_path):
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
