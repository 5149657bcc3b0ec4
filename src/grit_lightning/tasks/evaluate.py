"""``task=evaluate``: answer the held-out samples, print what the answers are worth, and write both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel

from grit_lightning import config, runs
from grit_lightning.adapters import saved_names
from grit_lightning.backbones.base import Backbone
from grit_lightning.data.datamodule import GroundedQADataModule
from grit_lightning.distributed import require_same_names
from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.evaluation import Evaluator, Metrics, Prediction, overview, summary, write_predictions
from grit_lightning.files import write_atomic
from grit_lightning.policy_module import POLICY_PREFIX
from grit_lightning.runs import RunFolder
from grit_lightning.tasks.existing import free, is_given, refuse_taken, run_config
from grit_lightning.tasks.prepare import prepare, probe_judge


class Evaluation(NamedTuple):
    """What an evaluation leaves behind.

    Attributes:
        folder: where ``predictions.jsonl``, ``metrics.json`` and ``config.yaml`` lie.
        predictions: one for each sample.
        metrics: ``evaluation.summary`` of them.
    """

    folder: Path
    predictions: list[Prediction]
    metrics: dict[str, Metrics]


class Weights(NamedTuple):
    """Of a run's last checkpoint.

    Attributes:
        file: the checkpoint.
        step: optimizer steps done in it.
        model: the policy's weights by their names in the model.
    """

    file: Path
    step: int
    model: dict[str, torch.Tensor]


def evaluate(cfg: DictConfig) -> Evaluation:
    """Evaluate the config's model; with ``ckpt``, what that run made of its model, under that run's config.

    The folder is ``out``, or a new one in the run's ``eval/``, called ``name`` where that is given, else by the step.
    Nothing that is there is overwritten.

    Raises:
        UserError: a config value, data file or run folder that cannot be used, before the first answer.
    """
    weights = None
    if cfg.ckpt is None:
        if config.is_sweep():
            cfg.out = HydraConfig.get().runtime.output_dir
        folder = Path(cfg.out).expanduser().absolute()
    else:
        run = runs.open_run(Path(cfg.ckpt).expanduser().absolute())
        weights = read_weights(run)
        cfg = run_config(cfg, run, config.overrides())
        folder = free(run.evaluation / (cfg.name if is_given("name") else f"step_{weights.step:06d}"))
    values = prepare(cfg)
    refuse_taken(folder)
    backbone: Backbone = instantiate(values["model"])
    datamodule: GroundedQADataModule = instantiate(values["data"])
    datamodule.attach(backbone.encode)
    evaluator: Evaluator = instantiate(values["evaluation"])
    if not datamodule.val_samples():
        raise ConfigError("there is nothing to evaluate on: data.val and data.heldout are both null")
    probe_judge(values)
    predictions = _predict(values["trainer"], backbone, datamodule, evaluator, weights)
    result = Evaluation(folder, predictions, summary(predictions))
    _write(result, cfg, weights)
    print(
        f"{_title(backbone, weights)}, {len(predictions)} samples\n\n{overview(result.metrics)}\n\nwritten to {folder}"
    )
    return result


def read_weights(run: RunFolder) -> Weights:
    """The policy's weights in the last checkpoint of a run, on the CPU.

    Raises:
        CheckpointError: the run has no checkpoint that can be read, or it is one of something else.
    """
    file = run.last_checkpoint()
    checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    state: dict[str, torch.Tensor] = checkpoint.get("state_dict", {})
    model = {name.removeprefix(POLICY_PREFIX): value for name, value in state.items() if name.startswith(POLICY_PREFIX)}
    if not model:
        raise CheckpointError(f"{file}: holds no weights of a policy, expected a checkpoint of this application")
    return Weights(file, checkpoint["global_step"], model)


def _predict(
    trainer: dict[str, Any],
    backbone: Backbone,
    datamodule: GroundedQADataModule,
    evaluator: Evaluator,
    weights: Weights | None,
) -> list[Prediction]:
    # Of the trainer only what says how to compute: one device is enough to generate.
    fabric = L.Fabric(accelerator=trainer["accelerator"], devices=1, precision=trainer["precision"])
    model = backbone.load_model()
    if weights is not None:
        load_weights(model, weights)
    model = model.to(fabric.device).eval()
    with torch.no_grad(), fabric.autocast():
        return evaluator.predict(
            model, backbone, datamodule.val_samples(), datamodule.prompt, what="answering", quiet=False
        )


def load_weights(model: PreTrainedModel, weights: Weights) -> None:
    """Put the weights of a run into its model.

    Raises:
        CheckpointError: they are those of another model.
    """
    require_same_names(saved_names(model), weights.model.keys())
    try:
        model.load_state_dict(weights.model, strict=False)  # beneath adapters, the model is the checkpoint's
    except RuntimeError as error:
        raise CheckpointError(
            f"{weights.file}: does not fit the model: {str(error).splitlines()[-1].strip()}"
        ) from error


def _write(result: Evaluation, cfg: DictConfig, weights: Weights | None) -> None:
    about = {
        "model": cfg.model.checkpoint,
        "step": weights.step if weights else None,
        "prompt": cfg.prompt.template,
        "prefill": cfg.prompt.prefill,
        "metrics": result.metrics,
    }
    try:
        result.folder.mkdir(parents=True, exist_ok=True)
        write_predictions(result.folder / "predictions.jsonl", result.predictions)
        write_atomic(result.folder / "metrics.json", json.dumps(about, indent=2, allow_nan=False) + "\n")
        write_atomic(result.folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    except OSError as error:
        raise ConfigError(f"{result.folder} cannot be written: {error.strerror} ({error.filename})") from error


def _title(backbone: Backbone, weights: Weights | None) -> str:
    return f"model {backbone.checkpoint}" if weights is None else f"{weights.file}, step {weights.step}"
