"""Tests of the thread that writes checkpoints: training goes on, one file at a time, errors are not lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from grit_lightning.errors import CheckpointError
from grit_lightning.training.checkpoint_writer import BackgroundCheckpointIO, on_host


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that writes half of a file, and the rest once the event is set."""
    may_go_on, save = threading.Event(), torch.save

    def slow(checkpoint, file) -> None:
        file.write(b"half")
        file.flush()
        assert may_go_on.wait(20)
        file.seek(0)
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", slow)
    yield may_go_on
    may_go_on.set()


def test_training_goes_on_while_a_file_is_written_and_its_state_is_that_of_the_step(tmp_path, disk) -> None:
    io, weight = BackgroundCheckpointIO(), torch.ones(3)
    io.save_checkpoint({"w": weight}, tmp_path / "last.ckpt")
    weight += 1
    assert names(tmp_path) in ([], [".last.ckpt.tmp"])
    disk.set()
    io.wait()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["w"].tolist() == [1, 1, 1]
    assert names(tmp_path) == ["last.ckpt"]


def test_links_are_made_once_the_file_is_whole_and_at_once_if_nothing_is_written(tmp_path, disk) -> None:
    io, last = BackgroundCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, last)
    io.then(lambda: os.link(last, tmp_path / "kept.ckpt"))
    assert not (tmp_path / "kept.ckpt").exists()
    disk.set()
    io.wait()
    assert os.path.samefile(last, tmp_path / "kept.ckpt")
    io.then(lambda: os.link(last, tmp_path / "other.ckpt"))
    assert os.path.samefile(last, tmp_path / "other.ckpt")


def test_the_next_checkpoint_waits_so_that_there_is_one_unfinished_file(tmp_path, disk) -> None:
    io, began = BackgroundCheckpointIO(), threading.Event()
    io.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")

    def second() -> None:
        began.set()
        io.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")

    thread = threading.Thread(target=second)
    thread.start()
    assert began.wait(20)
    thread.join(0.2)
    assert thread.is_alive()
    disk.set()
    thread.join(20)
    io.wait()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 2}


def test_a_failed_write_keeps_the_old_file_and_is_raised_once(tmp_path, monkeypatch) -> None:
    io, path = BackgroundCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    io.wait()

    def fail(checkpoint, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    io.save_checkpoint({"step": 2}, path)
    io.then(lambda: os.link(path, tmp_path / "kept.ckpt"))
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be written: No space left on device\."):
        io.wait()
    io.require_success()
    assert names(tmp_path)[-1:] == ["last.ckpt"]
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_copy_shares_memory_where_the_original_does() -> None:
    weight = torch.arange(6.0).view(2, 3)
    state = {"a": weight, "b": [weight, weight[1:], weight.t()], "step": 3}
    copy = on_host(state)
    weight.zero_()
    assert copy["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copy["b"][1].tolist() == [[3, 4, 5]]
    assert copy["b"][2].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert len({value.untyped_storage().data_ptr() for value in (copy["a"], *copy["b"])}) == 1
    assert copy["step"] == 3
