"""``task=export``: what a run made of its model, as an ordinary Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from transformers import GenerationConfig

from grit_lightning import config, runs
from grit_lightning.adapters import has_adapters, merge
from grit_lightning.backbones.base import Backbone
from grit_lightning.errors import ConfigError
from grit_lightning.tasks.evaluate import load_weights, read_weights, refuse_taken, run_config
from grit_lightning.tasks.prepare import prepare


def export(cfg: DictConfig, *, dtype: Literal["float32", "bfloat16", "float16"]) -> Path:
    """Write the weights of the run ``ckpt``, tokenizer and image processor to ``out``; returns that folder.

    Args:
        cfg: the composed config.
        dtype: of the stored weights.

    Raises:
        UserError: a config value or run folder that cannot be used, before anything is written.
    """
    if cfg.ckpt is None:
        raise ConfigError("ckpt is null, expected the run folder to export")
    config.check(cfg)
    folder = Path(cfg.out).expanduser().absolute()
    refuse_taken(folder)
    run = runs.open_run(Path(cfg.ckpt).expanduser().absolute())
    weights = read_weights(run)
    backbone: Backbone = instantiate(prepare(run_config(cfg, run, config.overrides()))["model"])
    model = backbone.load_model()
    load_weights(model, weights)
    if has_adapters(model):
        merge(model)
    # Plain generate() ends where the model ends its turn.
    model.generation_config = GenerationConfig(
        eos_token_id=list(backbone.eos_token_ids), pad_token_id=backbone.pad_token_id
    )
    for part in (model.to(getattr(torch, dtype)), backbone.tokenizer, backbone.image_processor):
        part.save_pretrained(folder)
    print(f"{weights.file}, step {weights.step}\n\nwritten to {folder}")
    return folder
