"""Preparation of an evaluation: build its parts and check them as far as possible without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app.startup import prepare
from grit_lightning.data.file_datamodule import GroundedQADataModule
from grit_lightning.data.subset import subset
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.tasks.evaluation_settings import data_settings, model_settings, weights_identity
from grit_lightning.training.checkpoint_weights import Weights, require_fit
from grit_lightning.types import Sample


class EvaluationJob(NamedTuple):
    """An evaluation whose parts were checked as far as possible without weights.

    Attributes:
        values: the resolved config.
        backbone: the checkpoint, without its weights.
        datamodule: encodes the samples' prompts.
        evaluator: answers samples and scores the answers.
        samples: the held-out samples to answer.
        weights: the run's weights; ``None`` for the checkpoint's own.
        settings: the settings that determine the predictions, as ``evaluation.json`` stores them.
        config_yaml: the resolved config as YAML.
    """

    values: Mapping[str, Any]
    backbone: Backbone
    datamodule: GroundedQADataModule
    evaluator: Evaluator
    samples: list[Sample]
    weights: Weights | None
    settings: dict[str, Any]
    config_yaml: str


def build_job(
    cfg: DictConfig, run: RunFolder | None, weights: Weights | None, max_samples: int | None
) -> EvaluationJob:
    """Build the parts of an evaluation and check config, samples and the names and shapes of the weights.

    Args:
        cfg: the config to evaluate under; for a run, the run's own.
        run: the run that trained the weights; ``None`` for an untrained checkpoint.
        weights: the run's weights; ``None`` for the checkpoint's own.
        max_samples: number of held-out samples, always the same subset; ``None`` for all.

    Raises:
        UserError: a config value, data file or checkpoint cannot be used.
    """
    values = prepare(cfg)
    backbone: Backbone = instantiate(values["model"])
    datamodule: GroundedQADataModule = instantiate(values["data"])
    datamodule.attach(backbone.encode)
    evaluator: Evaluator = instantiate(values["evaluation"])
    evaluator.engine.require_usable()
    samples = subset(datamodule.val_samples(), max_samples)
    if not samples:
        raise ConfigError(
            "there is nothing to evaluate on: data.val lists nothing; give data.val=FILE.jsonl or a folder"
        )
    backbone.weights_folder()
    if weights is not None:
        require_fit(backbone.outline(), weights)
    settings = {
        "weights": weights_identity(backbone, run, weights),
        **model_settings(values),
        "prompt": dict(values["prompt"]) | {"version": backbone.prompt_version},
        **evaluator.settings(),
        "data": data_settings(samples),
    }
    return EvaluationJob(
        values, backbone, datamodule, evaluator, samples, weights, settings, OmegaConf.to_yaml(cfg, resolve=True)
    )
