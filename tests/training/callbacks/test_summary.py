import io
import json
import os
import re
import signal
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from grit_lightning.runs.run_folder import RunFolder, create
from grit_lightning.training.callbacks import summary as module
from grit_lightning.training.callbacks.before_and_after import Demonstration
from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.callbacks.heldout import HeldoutEvaluation
from grit_lightning.training.callbacks.summary import RolloutWriter, StepProgressBar, TrainingSummary, places, table
from support.toy_run import Toy, fit

CONF = Path(__file__).parents[3] / "conf"

# The loader of a test need not be fast; and on a machine that has a GPU Lightning says that it is not used.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    # Lightning 2.6.6 still asks PyTorch 2.13 in the old way.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]


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
    """What is written to ``stderr``, with its escapes."""
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

    def test_after_a_resume_it_goes_on_counting(self, tmp_path):
        fit(Toy(), [last_of(tmp_path)], steps=4)
        text = fit_with_bar(io.StringIO(), steps=6, every=100, ckpt_path=tmp_path / "last.ckpt")
        assert [line.split("  ")[0] for line in step_lines(text)] == ["step 5/6", "step 6/6"]

    def test_time_left_is_reckoned_from_the_steps_of_this_process(self, monkeypatch):
        bar = StepProgressBar(line_every_n_steps=1)
        bar._start_step, bar._start_time = 100, 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: 1030.0)
        line = bar._line(SimpleNamespace(global_step=110, max_steps=200), {})
        assert line == "step 110/200  3 s/step  04:30 left"

    def test_other_ranks_show_nothing(self, capsys):
        bar = StepProgressBar(line_every_n_steps=1)
        bar.setup(SimpleNamespace(is_global_zero=False), None, "fit")
        bar.on_train_batch_end(SimpleNamespace(global_step=1, max_steps=2, callback_metrics={}))
        assert capsys.readouterr().err == ""


class TestProgressOnATerminal:
    def test_one_bar_over_all_steps_ends_full(self):
        last = fit_with_bar(Terminal(), steps=3).split("\r")[-1]
        assert "Training: 100%" in last
        assert "3/3" in last
        assert "reward=2.5, length=98, tokens/s=50" in last

    def test_after_a_resume_it_starts_where_the_run_stands(self, tmp_path):
        fit(Toy(), [last_of(tmp_path)], steps=4)
        text = fit_with_bar(Terminal(), steps=5, ckpt_path=tmp_path / "last.ckpt")
        bars = re.findall(r"(\d)/5 \[", text)
        assert (bars[0], bars[-1]) == ("4", "5")

    def test_what_is_printed_stands_on_lines_of_its_own(self, capsys):
        class Printer(Callback):
            def on_train_batch_end(self, trainer, pl_module, *_):
                pl_module.print("hello", trainer.global_step)

        fit_with_bar(Terminal(), steps=2, others=[Printer()])
        assert capsys.readouterr().out == "hello 1\nhello 2\n"

    def test_error_closes_the_bar(self):
        text = fit_with_bar(Terminal(), steps=3, module=Toy(at={1: stop}))
        assert "1/3" in text
        assert text.endswith("\n")


class TestSummary:
    def rows(self, text: str) -> dict[str, list[str]]:
        """The table's rows: name to cells."""
        cells = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
        return {row[0]: row[1:] for row in cells if len(row) == 3}

    def test_first_against_last_step(self, tmp_path, capsys):
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

    def test_first_step_survives_a_resume(self, tmp_path, capsys):
        fit(Toy(), [TrainingSummary(out=str(tmp_path)), last_of(tmp_path)], steps=2)
        capsys.readouterr()
        resumed = [TrainingSummary(out=str(tmp_path)), last_of(tmp_path)]
        fit(Toy(), resumed, steps=6, ckpt_path=tmp_path / "last.ckpt")
        output = capsys.readouterr().out
        assert self.rows(output)["reward"] == ["0.5", "5.5"]
        assert re.search(r"^ +step 1 +step 6$", output, re.MULTILINE)

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_interrupted_run_is_summed_up_as_far_as_it_got(self, tmp_path, capsys, error):
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

    def test_nothing_to_say_before_the_first_step_ends(self, tmp_path, capsys):
        with pytest.raises(ValueError, match="stop"):
            fit(Toy(at={0: stop}), [TrainingSummary(out=str(tmp_path))], steps=9, enable_checkpointing=False)
        assert capsys.readouterr().out == ""

    def test_value_that_one_step_lacks_is_a_dash(self):
        text = table({"step": 1, "reward": float("nan"), "old": 1.0}, {"step": 12, "reward": 2.0, "KL": 0.00123456})
        assert self.rows(text) == {"reward": ["-", "2"], "KL": ["-", "0.001235"], "old": ["1", "-"]}

    def test_only_places_that_hold_something_are_named(self, tmp_path):
        run = create(tmp_path / "run", composed_yaml="", config_yaml="", manifest={})
        (run.checkpoints / "last.ckpt").write_text("")
        assert places(run).splitlines() == [f"run folder   {run.path}", f"checkpoints  {run.checkpoints}"]
        run.tensorboard.mkdir()
        assert places(run).splitlines()[-1] == f"curves       tensorboard --logdir {run.tensorboard}"


class TestRolloutWriter:
    def write(self, tmp_path, monkeypatch, rank: int) -> Path:
        """One step of two ranks, seen by ``rank``; the records themselves are those of ``test_rollout_store``."""
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


class TestConfig:
    def part(self, name: str, out: Path):
        given = {"out": str(out), "evaluation": None}
        config = OmegaConf.merge(OmegaConf.load(CONF / name), given)
        OmegaConf.resolve(config)
        for key in given:
            del config[key]
        return config

    def test_callbacks_are_built_and_write_into_the_run_folder(self, tmp_path):
        built = instantiate(self.part("callbacks/default.yaml", tmp_path))
        assert {name: type(callback) for name, callback in built.items()} == {
            "checkpoint": StepCheckpoint,
            "demonstration": Demonstration,
            "heldout": HeldoutEvaluation,
            "progress": StepProgressBar,
            "rollouts": RolloutWriter,
            "summary": TrainingSummary,
        }
        assert built["checkpoint"].dirpath == RunFolder(tmp_path).checkpoints
        assert built["rollouts"].store.folder == RunFolder(tmp_path).rollouts

    @pytest.mark.parametrize(("name", "folder"), [("tensorboard", "tensorboard"), ("csv", "metrics")])
    def test_loggers_write_into_the_run_folder(self, tmp_path, name, folder):
        run = RunFolder(tmp_path)
        for _ in range(2):  # a resumed run logs too, and takes nothing away
            before = set(files(run.path))
            logger = instantiate(self.part(f"logger/{name}.yaml", tmp_path)[name])
            logger.log_metrics({"reward/total/mean": 1.0}, step=0)
            logger.finalize("success")
            assert set(files(run.path)) > before
        assert os.listdir(run.path) == [folder]
        assert getattr(run, folder).is_dir()

    def test_wandb_logger_knows_its_options(self, monkeypatch, tmp_path):
        # wandb is an optional extra: its logger's own signature is all that can be checked without it.
        from lightning.pytorch.loggers import wandb

        monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", True)
        logger = instantiate(self.part("logger/wandb.yaml", tmp_path)["wandb"])
        assert logger.save_dir == str(tmp_path)
        assert logger._wandb_init["resume"] == "allow"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
