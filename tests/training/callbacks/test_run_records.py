"""Tests of the rollout writer: the first rank writes the rollouts of all ranks."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.training.callbacks import run_records as module
from grit_lightning.training.callbacks.run_records import RolloutWriter


class TestRolloutWriter:
    def write(self, tmp_path, monkeypatch, rank: int) -> Path:
        """Play one step of two ranks as ``rank`` and return the path of its file; records are tested elsewhere."""
        monkeypatch.setattr(module, "records", lambda step, groups, scores, advantages: groups)

        def all_gather_object(into, mine):
            assert mine == [{"slot": rank, "completion_index": 0}]
            into[:] = [[{"slot": other, "completion_index": 0}] for other in (1, 0)]

        monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
        writer = RolloutWriter(out=str(tmp_path))
        done = SimpleNamespace(
            step=3, groups=[{"slot": rank, "completion_index": 0}], scores=[], advantages_P_G=torch.zeros(1, 1)
        )
        trainer = SimpleNamespace(world_size=2, is_global_zero=rank == 0)
        writer.on_train_batch_end(trainer, None, {"output": done}, None, 0)
        return RunFolder(tmp_path).rollouts / "step_000003.jsonl"

    def test_first_rank_writes_the_rollouts_of_all(self, tmp_path, monkeypatch):
        path = self.write(tmp_path, monkeypatch, rank=0)
        assert [json.loads(line)["slot"] for line in path.read_text().splitlines()] == [0, 1]

    def test_other_ranks_write_nothing(self, tmp_path, monkeypatch):
        assert not self.write(tmp_path, monkeypatch, rank=1).exists()
