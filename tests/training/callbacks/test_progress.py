"""Tests of the progress bar on a terminal and of the plain lines elsewhere."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Callback

from grit_lightning.training.callbacks import summary as module
from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.callbacks.progress import StepProgressBar
from support.toy_run import Toy, fit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def last_of(folder: Path) -> StepCheckpoint:
    return StepCheckpoint(dirpath=str(folder), every_n_steps=None, last_every_n_steps=None)


def stop() -> None:
    raise ValueError("stop")


def fit_with_bar(
    stderr: io.StringIO,
    steps: int,
    every: int = 1,
    others: Sequence[Callback] = (),
    module: Toy | None = None,
    **options,
) -> str:
    """Train, and return the text written to ``stderr``, escape sequences included."""
    callbacks = [StepProgressBar(line_every_n_steps=every), *others]
    with redirect_stderr(stderr), suppress(ValueError):
        fit(module or Toy(), callbacks, steps, enable_progress_bar=True, enable_checkpointing=False, **options)
    return stderr.getvalue()


def step_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("step")]


class TestProgressInALogFile:
    def test_first_every_nth_and_last_step_have_a_plain_line(self):
        text = fit_with_bar(io.StringIO(), steps=8, every=3)
        assert [line.split("  ")[0] for line in step_lines(text)] == ["step 1/8", "step 3/8", "step 6/8", "step 8/8"]
        assert not re.search(r"[\r\x1b]", text)

    def test_line_holds_the_values_of_its_own_step(self):
        first, second = step_lines(fit_with_bar(io.StringIO(), steps=2))
        assert first.startswith("step 1/2  reward 0.5  length 100  tokens/s 50  ")
        assert second.startswith("step 2/2  reward 1.5  length 99  tokens/s 50  ")
        assert re.search(r"  [\d.e-]+ s/step  00:0\d left$", first)

    def test_after_a_resume_the_step_count_continues(self, tmp_path):
        fit(Toy(), [last_of(tmp_path)], steps=4)
        text = fit_with_bar(io.StringIO(), steps=6, every=100, ckpt_path=tmp_path / "last.ckpt")
        assert [line.split("  ")[0] for line in step_lines(text)] == ["step 5/6", "step 6/6"]

    def test_time_left_is_estimated_from_the_steps_of_this_process(self, monkeypatch):
        bar = StepProgressBar(line_every_n_steps=1)
        bar._start_step, bar._start_time = 100, 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: 1030.0)
        line = bar._line(SimpleNamespace(global_step=110, max_steps=200), {})
        assert line == "step 110/200  3 s/step  04:30 left"

    def test_what_comes_before_the_first_step_is_not_part_of_its_time(self, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
        bar, trainer = StepProgressBar(line_every_n_steps=1), SimpleNamespace(global_step=0, max_steps=80)
        bar.on_train_start(trainer, None)
        now[0] += 44  # held-out questions
        for step in (1, 2):
            bar.on_train_batch_start(trainer)
            now[0] += 2
            trainer.global_step = step
            assert bar._line(trainer, {}).startswith(f"step {step}/80  2 s/step  02:3")

    @pytest.mark.parametrize("first_rank", [True, False])
    def test_only_the_first_rank_shows_progress(self, capsys, first_rank):
        bar = StepProgressBar(line_every_n_steps=1)
        bar.setup(SimpleNamespace(is_global_zero=first_rank), None, "fit")
        bar.on_train_batch_end(SimpleNamespace(global_step=1, max_steps=2, callback_metrics={}))
        assert capsys.readouterr().err.startswith("step 1/2  ") is first_rank
        assert bar.is_enabled is first_rank


class TestProgressOnATerminal:
    def test_one_bar_over_all_steps_ends_full(self):
        last = fit_with_bar(Terminal(), steps=3).split("\r")[-1]
        assert "Training: 100%" in last
        assert "3/3" in last
        assert "reward=2.5, length=98, tokens/s=50" in last

    def test_after_a_resume_the_bar_starts_at_the_resumed_step(self, tmp_path):
        fit(Toy(), [last_of(tmp_path)], steps=4)
        text = fit_with_bar(Terminal(), steps=5, ckpt_path=tmp_path / "last.ckpt")
        bars = re.findall(r"(\d)/5 \[", text)
        assert (bars[0], bars[-1]) == ("4", "5")

    def test_printed_text_gets_its_own_lines(self, capsys):
        class Printer(Callback):
            def on_train_batch_end(self, trainer, pl_module, *_):
                pl_module.print("hello", trainer.global_step)

        fit_with_bar(Terminal(), steps=2, others=[Printer()])
        assert capsys.readouterr().out == "hello 1\nhello 2\n"

    def test_an_error_closes_the_bar(self):
        text = fit_with_bar(Terminal(), steps=3, module=Toy(at={1: stop}))
        assert "1/3" in text
        assert text.endswith("\n")
