"""Tests of a run's checkpoint files: the newest one that is whole."""

import os
import re
import time
from pathlib import Path

import pytest
import torch

from grit_lightning.errors import CheckpointError
from grit_lightning.runs.checkpoint_files import is_whole, read_checkpoint
from grit_lightning.runs.run_folder import RunFolder


def checkpoint(path: Path, age: float = 0.0) -> Path:
    torch.save({"w": torch.zeros(3)}, path)
    os.utime(path, (time.time() - age,) * 2)
    return path


class TestLastCheckpoint:
    def test_last_ckpt_counts_as_newest_even_if_another_file_is_younger(self, run):
        # A run that was set back to step 10 has newer weights than the step 20 of before.
        last = checkpoint(run.checkpoints / "last.ckpt", age=100)
        checkpoint(run.checkpoints / "step_000020.ckpt")
        assert run.last_checkpoint() == last

    def test_a_torn_checkpoint_is_skipped(self, run):
        last = checkpoint(run.checkpoints / "last.ckpt")
        last.write_bytes(last.read_bytes()[:-50])
        checkpoint(run.checkpoints / "step_000009.ckpt")
        newest = checkpoint(run.checkpoints / "step_000010.ckpt", age=100)
        (run.checkpoints / "step_000011.ckpt").write_bytes(b"")
        assert run.last_checkpoint() == newest

    def test_a_temporary_file_is_no_checkpoint(self, run):
        checkpoint(run.checkpoints / ".last.ckpt.tmp")
        with pytest.raises(CheckpointError, match=r"this run has no checkpoint yet\.$"):
            run.last_checkpoint()

    def test_a_run_without_checkpoints_says_so(self, run):
        with pytest.raises(CheckpointError, match=rf"^{re.escape(str(run.path))}: this run has no checkpoint yet\.$"):
            run.last_checkpoint()

    def test_a_run_whose_checkpoints_are_all_torn_says_so(self, run):
        (run.checkpoints / "last.ckpt").write_bytes(b"half")
        with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints here can be read\.$"):
            run.last_checkpoint()

    def test_a_folder_without_a_manifest_is_no_run(self, tmp_path):
        with pytest.raises(CheckpointError, match="is not a run folder"):
            RunFolder(tmp_path).last_checkpoint()


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "last.ckpt"
    state = {"weights": {f"w{i}": torch.randn(40) for i in range(5)}, "step": 3, "text": "x" * 50}
    torch.save(state, path)
    whole = path.read_bytes()
    places = torch.randperm(len(whole) * 8, generator=torch.Generator().manual_seed(0))[:1500].tolist()
    found = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        if not is_whole(path):
            found += 1
            continue
        try:
            read = read_checkpoint(path)
        except CheckpointError:
            continue
        assert (read["step"], read["text"]) == (state["step"], state["text"])
        assert all(torch.equal(read["weights"][name], value) for name, value in state["weights"].items())
    assert found > len(places) / 3  # the others are in padding between the members


class _Code:
    def __reduce__(self):
        return print, ("code from the checkpoint ran",)


def test_a_checkpoint_with_code_is_refused_in_one_line_without_advice_to_run_it(tmp_path, capsys):
    torch.save({"state_dict": _Code()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / "evil.ckpt")
    assert str(error.value) == (
        f"{tmp_path / 'evil.ckpt'} is not read, because it holds more than tensors and plain values: reading it could "
        "run code"
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04half"])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^\S+/x\.ckpt [^\n]+$"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_the_damaged_file_is_named_in_the_log(run, caplog):
    checkpoint(run.checkpoints / "step_000010.ckpt")
    (run.checkpoints / "last.ckpt").write_bytes(b"half")
    run.last_checkpoint()
    assert caplog.messages == [f"{run.checkpoints / 'last.ckpt'} is damaged and is left out"]
