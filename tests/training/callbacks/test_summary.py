"""Tests of the summary table at the end of a training."""

import re
import signal
from pathlib import Path

import pytest

from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.callbacks.summary import TrainingSummary, first_and_last, places
from support.run_folders import create
from support.toy_run import Toy, fit


def last_of(folder: Path) -> StepCheckpoint:
    return StepCheckpoint(dirpath=str(folder), every_n_steps=None, last_every_n_steps=None)


def stop() -> None:
    raise ValueError("stop")


class TestSummary:
    def rows(self, text: str) -> dict[str, list[str]]:
        """Return the cells of each row of the table by name."""
        cells = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
        return {row[0]: row[1:] for row in cells if len(row) == 3}

    def test_the_table_compares_the_first_with_the_last_step(self, tmp_path, capsys):
        fit(Toy(), [TrainingSummary(out=str(tmp_path))], steps=5, enable_checkpointing=False)
        output = capsys.readouterr().out
        rows = self.rows(output)
        seconds = rows.pop("seconds per step")
        assert rows == {
            "reward": ["0.5", "4.5"],
            "count": ["0", "4"],
            "completion length": ["100", "96"],
            "truncated share": ["0.25", "0.25"],
        }
        assert all(0 < float(value) < 5 for value in seconds)
        assert "Training ended at step 5." in output
        assert re.search(r"^ +step 1 +step 5$", output, re.MULTILINE)

    def test_the_first_step_is_remembered_after_a_resume(self, tmp_path, capsys):
        fit(Toy(), [TrainingSummary(out=str(tmp_path)), last_of(tmp_path)], steps=2)
        capsys.readouterr()
        resumed = [TrainingSummary(out=str(tmp_path)), last_of(tmp_path)]
        fit(Toy(), resumed, steps=6, ckpt_path=tmp_path / "last.ckpt")
        output = capsys.readouterr().out
        assert self.rows(output)["reward"] == ["0.5", "5.5"]
        assert re.search(r"^ +step 1 +step 6$", output, re.MULTILINE)

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_interrupted_run_is_summarised_up_to_its_last_step(self, tmp_path, capsys, error):
        def interrupt():
            raise error

        handler = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises((ValueError, SystemExit)):
                fit(Toy(at={3: interrupt}), [TrainingSummary(out=str(tmp_path))], steps=9, enable_checkpointing=False)
        finally:
            signal.signal(signal.SIGINT, handler)
        output = capsys.readouterr().out
        assert f"Training stopped after step 3 ({error.__name__})." in output
        assert self.rows(output)["reward"] == ["0.5", "2.5"]

    def test_no_summary_is_printed_before_the_first_step_ends(self, tmp_path, capsys):
        with pytest.raises(ValueError, match="stop"):
            fit(Toy(at={0: stop}), [TrainingSummary(out=str(tmp_path))], steps=9, enable_checkpointing=False)
        assert capsys.readouterr().out == ""

    def test_a_value_missing_in_one_step_is_a_dash(self):
        text = first_and_last(
            {"step": 1, "reward": float("nan"), "old": 1.0}, {"step": 12, "reward": 2.0, "KL": 0.00123456}
        )
        assert self.rows(text) == {"reward": ["-", "2"], "KL": ["-", "0.001235"], "old": ["1", "-"]}

    def test_only_existing_output_folders_are_named(self, tmp_path):
        run = create(tmp_path / "run")
        (run.checkpoints / "last.ckpt").write_text("")
        assert places(run).splitlines() == [f"run folder   {run.path}", f"checkpoints  {run.checkpoints}"]
        run.tensorboard.mkdir()
        assert places(run).splitlines()[-1] == f"curves       tensorboard --logdir {run.tensorboard}"
