"""Tests of the callbacks and loggers that the configs build."""

import os
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.training.callbacks.before_and_after import Demonstration
from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
from grit_lightning.training.callbacks.heldout import HeldoutEvaluation
from grit_lightning.training.callbacks.progress import StepProgressBar
from grit_lightning.training.callbacks.run_records import RolloutWriter
from grit_lightning.training.callbacks.summary import TrainingSummary
from grit_lightning.training.callbacks.tracked import TrackedConfig, TrackedExamples

CONF = Path(__file__).parents[3] / "conf"


class TestConfig:
    def part(self, name: str, out: Path):
        evaluation = {"during_training": None, "resamples": 0, "engine": {"runs_policy": True}}
        given = {"out": str(out), "evaluation": evaluation}
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
            "examples": TrackedExamples,
            "heldout": HeldoutEvaluation,
            "hyperparameters": TrackedConfig,
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
