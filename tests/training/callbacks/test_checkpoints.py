"""Tests of the checkpoint callback: when it saves, resuming, interruptions and atomic writes."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.system.stop import stop_signals
from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.checkpoint_writer import BackgroundCheckpointIO
from support import toy_run
from support.toy_run import Toy, fit

# Warnings of Lightning that do not matter here: a slow loader, and an unused GPU.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    # Lightning 2.6.6 uses a deprecated function of PyTorch 2.13.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]


@pytest.fixture(autouse=True)
def _restore_signals():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    stop_signals.resume()
    stop_signals.received = None
    for number, handler in handlers.items():
        signal.signal(number, handler)


def step_checkpoint(folder: Path, every: int | None = None, last: int | None = None) -> StepCheckpoint:
    return StepCheckpoint(dirpath=str(folder), every_n_steps=every, last_every_n_steps=last)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def saved_step(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


def saved_steps(module: Toy, folder: Path) -> list[int]:
    """Return the step of each checkpoint, once the one that is being written is whole."""
    module.trainer.strategy.checkpoint_io.wait()
    return [saved_step(folder / name) for name in names(folder)]


def uninterrupted(steps: int) -> torch.Tensor:
    module = Toy()
    fit(module, [], steps, enable_checkpointing=False)
    return module.layer.weight.detach()


class TestOccasions:
    def test_periodic_checkpoints_are_kept_and_last_holds_the_last_step(self, tmp_path):
        fit(Toy(), [step_checkpoint(tmp_path, every=2, last=3)], steps=7)
        assert names(tmp_path) == ["last.ckpt", "step_000002.ckpt", "step_000004.ckpt", "step_000006.ckpt"]
        assert [saved_step(tmp_path / name) for name in names(tmp_path)] == [7, 2, 4, 6]

    def test_without_intervals_only_last_is_written_at_the_end(self, tmp_path):
        fit(Toy(), [step_checkpoint(tmp_path)], steps=3)
        assert names(tmp_path) == ["last.ckpt"]
        assert saved_step(tmp_path / "last.ckpt") == 3

    def test_last_is_never_older_than_a_periodic_checkpoint(self, tmp_path):
        module, seen = Toy(), []
        module.at = dict.fromkeys((2, 3, 4), lambda: seen.append(saved_steps(module, tmp_path)))
        fit(module, [step_checkpoint(tmp_path, every=2, last=3)], steps=5)
        assert seen == [[2, 2], [3, 2], [4, 2, 4]]

    def test_last_is_a_hard_link_to_an_equal_periodic_checkpoint(self, tmp_path):
        fit(Toy(), [step_checkpoint(tmp_path, every=2)], steps=2)
        assert os.path.samefile(tmp_path / "last.ckpt", tmp_path / "step_000002.ckpt")

    def test_training_that_ends_early_is_saved(self, tmp_path):
        module = Toy()
        module.at[2] = lambda: setattr(module.trainer, "should_stop", True)
        fit(module, [step_checkpoint(tmp_path)], steps=9)
        assert saved_step(tmp_path / "last.ckpt") == 3

    def test_a_repeated_step_does_not_overwrite_its_checkpoint(self, tmp_path):
        fit(Toy(), [step_checkpoint(tmp_path, every=2)], steps=4)
        before = (tmp_path / "step_000004.ckpt").read_bytes()
        fit(Toy(), [step_checkpoint(tmp_path, every=2)], steps=4, ckpt_path=tmp_path / "step_000002.ckpt")
        assert names(tmp_path) == ["last.ckpt", "step_000002.ckpt", "step_000004.ckpt", "step_000004_v2.ckpt"]
        assert (tmp_path / "step_000004.ckpt").read_bytes() == before

    def test_best_ckpt_is_replaced_by_each_better_step(self, tmp_path):
        checkpoint = step_checkpoint(tmp_path, last=3)

        class Best(Checkpoint):  # Lightning calls callbacks of this type after all others
            def on_train_batch_end(self, trainer, *_):
                if trainer.global_step in (2, 4):
                    checkpoint.keep_best(trainer)

        module, seen = Toy(), []
        module.at = dict.fromkeys((2, 4), lambda: seen.append(saved_steps(module, tmp_path)))
        fit(module, [checkpoint, Best()], steps=5)
        assert seen == [[2, 2], [4, 4]]
        assert names(tmp_path) == ["best.ckpt", "last.ckpt"]
        assert [saved_step(tmp_path / name) for name in names(tmp_path)] == [4, 5]

    def test_checkpoints_are_written_without_hard_links_too(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError("not supported")

        monkeypatch.setattr(os, "link", refuse)
        fit(Toy(), [step_checkpoint(tmp_path, every=2)], steps=3)
        assert [saved_step(tmp_path / name) for name in names(tmp_path)] == [3, 2]

    def test_a_fast_dev_run_writes_nothing(self, tmp_path):
        fit(Toy(), [step_checkpoint(tmp_path / "none", every=1)], steps=3, fast_dev_run=True)
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize("key", ["every_n_steps", "last_every_n_steps"])
    def test_interval_below_one_is_refused(self, tmp_path, key):
        options = {"dirpath": str(tmp_path), "every_n_steps": None, "last_every_n_steps": None} | {key: 0}
        with pytest.raises(ConfigError, match=rf"callbacks\.checkpoint\.{key} is 0"):
            StepCheckpoint(**options)


class TestResume:
    @pytest.mark.parametrize("steps_before", [2, 3])
    def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(self, tmp_path, steps_before):
        fit(Toy(), [step_checkpoint(tmp_path)], steps=steps_before)
        module = Toy()
        trainer = fit(module, [step_checkpoint(tmp_path)], steps=6, ckpt_path=tmp_path / "last.ckpt")
        assert trainer.global_step == 6
        assert trainer.fit_loop.epoch_loop.total_batch_idx == 5
        assert trainer.current_epoch == 1  # the stream's one epoch is counted once, not once for each process
        assert torch.equal(module.layer.weight, uninterrupted(6))

    @pytest.mark.parametrize("interruption", ["error", "ctrl-c", "sigint", "sigterm", "sighup"])
    def test_an_interrupted_step_is_repeated(self, tmp_path, interruption):
        def interrupt():
            if interruption == "error":
                raise ValueError("out of memory")
            if interruption == "ctrl-c":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.Signals[interruption.upper()])

        first, second = CSVLogger(tmp_path, name="csv"), CSVLogger(tmp_path, name="csv")
        with pytest.raises((SystemExit, ValueError)):
            fit(Toy(at={3: interrupt}), [step_checkpoint(tmp_path / "c")], steps=6, logger=first)
        assert saved_step(tmp_path / "c" / "last.ckpt") == 3
        stop_signals.received = None  # as in the new process of a resume
        module = Toy()
        fit(module, [step_checkpoint(tmp_path / "c")], steps=6, ckpt_path=tmp_path / "c" / "last.ckpt", logger=second)
        assert torch.equal(module.layer.weight, uninterrupted(6))
        assert logged_steps(first) + logged_steps(second) == list(range(6))

    @pytest.mark.parametrize("last", [1, None], ids=["saved_already", "not_saved_yet"])
    def test_an_interruption_says_how_to_resume_whether_or_not_the_step_was_saved(self, tmp_path, caplog, last):
        def interrupt():
            raise KeyboardInterrupt

        with caplog.at_level("INFO", "grit_lightning"), pytest.raises(SystemExit):
            fit(Toy(at={3: interrupt}), [step_checkpoint(tmp_path / "run" / "checkpoints", last=last)], steps=6)
        told = [message for message in caplog.messages if "resume=" in message]
        assert told == [f"KeyboardInterrupt: the 3 steps done are saved; continue with resume={tmp_path / 'run'}"]

    def test_a_run_that_was_interrupted_before_its_first_step_can_be_resumed_too(self, tmp_path, caplog):
        def interrupt():
            raise KeyboardInterrupt

        with caplog.at_level("INFO", "grit_lightning"), pytest.raises(SystemExit):
            fit(Toy(at={0: interrupt}), [step_checkpoint(tmp_path / "run" / "c", last=1)], steps=6)
        told = [message for message in caplog.messages if "resume=" in message]
        assert told == [f"KeyboardInterrupt: continue with resume={tmp_path / 'run'}"]

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_a_request_to_stop_during_an_update_is_obeyed_when_the_step_has_ended(self, tmp_path, caplog, name):
        module = Toy()

        def interrupt(*_):
            os.kill(os.getpid(), signal.Signals[name])

        module.at[3] = lambda: module.trainer.optimizers[0].register_step_post_hook(interrupt)
        with caplog.at_level("INFO", "grit_lightning"), pytest.raises(SystemExit):
            fit(module, [step_checkpoint(tmp_path / "run" / "c", last=10)], steps=6)
        assert saved_step(tmp_path / "run" / "c" / "last.ckpt") == 4
        told = [message for message in caplog.messages if "resume=" in message]
        assert told[-1] == f"{name}: the 4 steps done are saved; continue with resume={tmp_path / 'run'}"
        stop_signals.received = None  # as in the new process of a resume
        resumed = Toy()
        fit(resumed, [step_checkpoint(tmp_path / "c")], steps=6, ckpt_path=tmp_path / "run" / "c" / "last.ckpt")
        assert torch.equal(resumed.layer.weight, uninterrupted(6))

    def test_after_a_damaged_last_checkpoint_the_next_one_is_written_even_at_the_same_step(self, tmp_path):
        fit(Toy(), [step_checkpoint(tmp_path, every=2)], steps=4)
        (tmp_path / "last.ckpt").unlink()  # its damaged content is shared by no other name
        (tmp_path / "last.ckpt").write_bytes(b"damaged")

        class Best(Checkpoint):
            def on_train_start(self, trainer, *_):
                checkpoint.keep_best(trainer)

        checkpoint = step_checkpoint(tmp_path)
        fit(Toy(), [checkpoint, Best()], steps=5, ckpt_path=tmp_path / "step_000002.ckpt")
        assert saved_step(tmp_path / "best.ckpt") == 2

    def test_a_partial_weight_update_is_not_saved(self, tmp_path):
        module = Toy()

        def interrupt(*_):
            raise KeyboardInterrupt

        module.at[3] = lambda: module.trainer.optimizers[0].register_step_post_hook(interrupt)
        with pytest.raises(SystemExit), pytest.warns(UserWarning, match="during a weight update: .* since step 2 is"):
            fit(module, [step_checkpoint(tmp_path, last=2)], steps=6)
        assert saved_step(tmp_path / "last.ckpt") == 2

    def test_failure_to_save_does_not_hide_the_error(self, tmp_path):
        def fail():
            (tmp_path / "c").write_text("in the way")
            raise ValueError("the real reason")

        with pytest.raises(ValueError, match="the real reason"), pytest.warns(UserWarning, match="cannot be written"):
            fit(Toy(at={1: fail}), [step_checkpoint(tmp_path / "c")], steps=3)


class TestAtomicity:
    @pytest.mark.slow
    def test_after_a_kill_during_a_write_the_previous_checkpoint_resumes_the_same_run(self, tmp_path):
        script = [sys.executable, toy_run.__file__, str(tmp_path), "6"]
        killed = subprocess.run(script, capture_output=True, text=True, timeout=120)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert names(tmp_path) == [".last.ckpt.tmp", "last.ckpt"]
        assert not zipfile.is_zipfile(tmp_path / ".last.ckpt.tmp")
        assert saved_step(tmp_path / "last.ckpt") == 2
        module = Toy()
        fit(module, [step_checkpoint(tmp_path)], steps=6, ckpt_path=tmp_path / "last.ckpt")
        assert torch.equal(module.layer.weight, uninterrupted(6))
        assert names(tmp_path) == ["last.ckpt"]

    def test_the_trainer_writes_every_checkpoint_atomically_in_the_background(self, tmp_path):
        trainer = fit(Toy(), [step_checkpoint(tmp_path)], steps=1)
        assert type(trainer.strategy.checkpoint_io) is BackgroundCheckpointIO

    @pytest.mark.filterwarnings("ignore:No checkpoint could be written after the interruption")
    def test_a_checkpoint_that_cannot_be_written_ends_training_at_the_next_step(self, tmp_path, monkeypatch):
        def fail(checkpoint, file):
            raise OSError(28, "No space left on device")

        def fill_disk():
            module.trainer.strategy.checkpoint_io.wait()
            monkeypatch.setattr(torch, "save", fail)

        module = Toy(at={1: fill_disk})
        # The thread has a step's time to fail; the error is raised when it has, at the latest by the next checkpoint.
        with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be written: No space left on device\."):
            fit(module, [step_checkpoint(tmp_path, last=1)], steps=6)
        assert module.trainer.global_step < 6
        assert names(tmp_path) == ["last.ckpt"]
        assert saved_step(tmp_path / "last.ckpt") == 1


def logged_steps(logger: CSVLogger) -> list[int]:
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("step")
    return [int(line.split(",")[column]) for line in lines[1:]]
