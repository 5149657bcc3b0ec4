import os

import pytest

from grit_lightning.files import append_line, replacing, sha256, write_atomic


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
