"""``task=train`` and ``task=sft``: build the parts, check them before the first step, then fit."""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app.overrides import apply_overrides, given_overrides, load_run_config, output_path
from grit_lightning.app.startup import prepare, probe_judge
from grit_lightning.data.prompt_datamodule import PromptDataModule
from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.runs import run_folder as runs
from grit_lightning.runs.manifest import manifest
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import sha256
from grit_lightning.system.rank import is_first_process
from grit_lightning.training.callbacks.run_records import ResumeNote
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.types import Sample

log = logging.getLogger(__name__)

_FIXED = ("optimizer", "out=", "name=", "model.", "seed=")
"""Prefixes of overrides that a resume refuses: the checkpoint fixes their value, or they identify the run."""


class Training(NamedTuple):
    """Result of a training run.

    Attributes:
        run: the run folder.
        metrics: metrics of the last step, by name.
        trainer: the trainer, which holds the module and the data module.
    """

    run: RunFolder
    metrics: dict[str, float]
    trainer: L.Trainer


def train_policy(cfg: DictConfig) -> Training:
    """Train the policy of the config in a new run folder or, with ``resume``, continue an existing run.

    Raises:
        UserError: a config value, data file or checkpoint cannot be used; raised before the first step.
    """
    if cfg.resume is not None:
        return _resume(runs.open_run(Path(cfg.resume).expanduser()))
    cfg.out = str(output_path(cfg))
    module, datamodule, trainer = _build(cfg)
    run = _create_run(cfg, datamodule.train_samples())
    return _fit(run, module, datamodule, trainer, checkpoint=None)


def _resume(run: RunFolder) -> Training:
    changes = [change for change in given_overrides() if not change.startswith(("resume=", "task="))]
    if kept := next((change for change in changes if change.lstrip("+~").startswith(_FIXED)), None):
        raise ConfigError(f"{kept} cannot be changed in a resume: it is part of the checkpoint or names the run")
    checkpoint = run.last_checkpoint()
    cfg = load_run_config(run)
    apply_overrides(cfg, changes)
    step = torch.load(checkpoint, map_location="meta", weights_only=True)["global_step"]
    if step >= cfg.trainer.max_steps > 0:
        raise CheckpointError(
            f"{run.path}: all {step} steps are done; to go on, give a larger trainer.max_steps, such as {2 * step}"
        )
    module, datamodule, trainer = _build(cfg, ResumeNote(run, checkpoint, step, changes))
    log.info("continuing %s after step %d", run.path, step)
    return _fit(run, module, datamodule, trainer, checkpoint=checkpoint)


def _build(cfg: DictConfig, *callbacks: Callback) -> tuple[PolicyModule, PromptDataModule, L.Trainer]:
    """Build the parts and check config, tokenizer, samples, judge and hardware before weights are loaded."""
    values = prepare(cfg)
    module: PolicyModule = instantiate(values["module"])
    datamodule: PromptDataModule = instantiate(values["data"])
    datamodule.attach(module.backbone.encode)
    datamodule.setup("fit")
    module.check_samples(datamodule.train_samples())
    trainer: L.Trainer = instantiate(
        values["trainer"],
        callbacks=[*callbacks, *map(instantiate, filter(None, (values["callbacks"] or {}).values()))],
        logger=[*map(instantiate, filter(None, (values["logger"] or {}).values()))],
        _convert_="all",
    )
    probe_judge(values)
    module.backbone.weights_folder()
    datamodule.require_prompts_for(trainer.num_nodes * trainer.num_devices)
    return module, datamodule, trainer


def _create_run(cfg: DictConfig, samples: Sequence[Sample]) -> RunFolder:
    run = RunFolder(Path(cfg.out))
    if not is_first_process():
        return run
    hashes = data_sha256(samples)
    return runs.create(
        run.path,
        composed_yaml=OmegaConf.to_yaml(cfg),
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        manifest=manifest(seed=cfg.seed, overrides=given_overrides(), data_sha256=hashes),
    )


def data_sha256(samples: Sequence[Sample]) -> dict[str, str]:
    """Return the SHA-256 of each data file, and one over all images of each data file, by path."""
    files = dict.fromkeys(Path(sample.source.rpartition(":")[0]) for sample in samples)
    hashes = {str(file): sha256(file) for file in files}
    for file in files:
        images = [sha256(sample.image) for sample in samples if sample.source.startswith(f"{file}:")]
        hashes[f"{file} (its images)"] = hashlib.sha256("".join(images).encode()).hexdigest()
    return hashes


def _fit(
    run: RunFolder,
    module: PolicyModule,
    datamodule: PromptDataModule,
    trainer: L.Trainer,
    checkpoint: Path | None,
) -> Training:
    handler = logging.FileHandler(run.path / "run.log") if is_first_process() else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        trainer.fit(module, datamodule, ckpt_path=checkpoint)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)  # Lightning exits with 0, as if the job had finished
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    return Training(run, {key: float(value) for key, value in trainer.callback_metrics.items()}, trainer)
