"""Tests of the store of rollouts, one JSONL file per step."""

import json

import pytest
import torch

from grit_lightning.errors import DataError
from grit_lightning.runs.records import records
from grit_lightning.runs.rollout_store import RolloutStore
from support.rollouts import SCORED, UNSCORED, group, two_records


class TestStore:
    def test_each_completion_is_one_line_even_with_unicode_line_separators(self, tmp_path):
        path = RolloutStore(tmp_path / "rollouts").write(12, two_records())
        assert path == tmp_path / "rollouts" / "step_000012.jsonl"
        assert [json.loads(line)["completion_index"] for line in path.read_text().splitlines()] == [0, 1]

    def test_the_file_does_not_depend_on_the_order_of_the_ranks(self, tmp_path):
        store = RolloutStore(tmp_path)
        ranks = [records(0, [group(slot)], [(SCORED, UNSCORED)], torch.zeros(1, 2)) for slot in (0, 1, 2)]
        first = store.write(0, ranks[0] + ranks[2] + ranks[1]).read_bytes()
        assert store.write(0, ranks[2] + ranks[1] + ranks[0]).read_bytes() == first

    def test_steps_are_listed_in_order_and_other_files_ignored(self, tmp_path):
        store = RolloutStore(tmp_path)
        for step in (1_000_000, 2, 10):
            store.write(step, two_records(step))
        (tmp_path / ".step_000003.jsonl.tmp").write_text("half")
        (tmp_path / "notes.txt").write_text("")
        assert store.steps() == [2, 10, 1_000_000]
        assert store.read(10)[0]["step"] == 10

    def test_a_missing_folder_has_no_steps(self, tmp_path):
        assert RolloutStore(tmp_path / "none").steps() == []

    def test_reading_a_missing_step_is_a_data_error(self, tmp_path):
        with pytest.raises(DataError, match=r"no rollouts of step 3\.$"):
            RolloutStore(tmp_path).read(3)

    @pytest.mark.parametrize("line", ['{"step": ', "[1]"])
    def test_an_invalid_line_is_named_by_file_and_line(self, tmp_path, line):
        path = RolloutStore(tmp_path).write(3, two_records())
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(DataError, match=r"step_000003\.jsonl:3: (not valid JSON .*|expected a JSON object$)"):
            RolloutStore(tmp_path).read(3)
