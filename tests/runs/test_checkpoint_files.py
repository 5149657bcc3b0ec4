"""Tests of a run's checkpoint files: the newest one that is whole."""

import os
import re
import time
from pathlib import Path

import pytest
import torch

from grit_lightning.errors import CheckpointError
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
