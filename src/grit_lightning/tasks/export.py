"""``task=export``: write the trained model of a run as an ordinary Hugging Face folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from transformers import GenerationConfig, PreTrainedModel

from grit_lightning.app import config
from grit_lightning.app.output_folder import claimed
from grit_lightning.app.overrides import changed_run_config, given_overrides, is_default_output, output_path
from grit_lightning.app.startup import prepare
from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.model.adapters import has_adapters, merge
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.model.backbones.special_tokens import write_as_plain_text
from grit_lightning.model.conversion.internvl import write_processors
from grit_lightning.model.conversion.safetensors_files import disk_errors
from grit_lightning.model.finite import first_not_finite
from grit_lightning.model.hub import WEIGHTS
from grit_lightning.runs import run_folder as runs
from grit_lightning.system.disk import disk_refusal
from grit_lightning.tasks.card_snippet import card_snippet
from grit_lightning.tasks.model_card import model_card
from grit_lightning.tasks.upload import require_upload, upload
from grit_lightning.training.checkpoint_weights import load_weights, read_weights


def export_model(
    cfg: DictConfig,
    *,
    dtype: Literal["float32", "bfloat16", "float16"],
    shard_size: str,
    push: str | None,
    private: bool,
) -> Path:
    """Write the trained weights of the run ``run`` and the other files of its checkpoint to ``out``; return ``out``.

    Adapters are merged into the weights. Tokenizer, processor, chat template and generation config are copied from the
    checkpoint byte for byte.

    Args:
        cfg: the composed config.
        dtype: type of the stored weights.
        shard_size: maximum size of a weight file, such as ``5GB``.
        push: hub repository ``ORGANISATION/NAME`` to upload the folder to; ``None`` for no upload.
        private: create that repository as private, if it does not exist.

    Raises:
        UserError: a config value or the run folder cannot be used, or ``push`` cannot be uploaded to (raised before
            anything is loaded or written); or the upload fails, which leaves the folder in place.
    """
    if cfg.run is None:
        raise ConfigError("run is null, expected the run folder to export: run=RUN")
    config.check(cfg)
    with claimed(output_path(cfg), next_free=is_default_output()) as folder:
        _export(cfg, folder, dtype, shard_size, push)
    if push is not None:
        print(f"uploaded to {upload(folder, push, private=private)}")
    return folder


def _export(cfg: DictConfig, folder: Path, dtype: str, shard_size: str, push: str | None) -> None:
    run, checkpoint = runs.open_checkpoint(Path(cfg.run).expanduser().absolute())
    if push is not None:
        require_upload(push)
    weights = read_weights(checkpoint)
    values = prepare(changed_run_config(cfg, run, given_overrides()))
    if values["model"].get("peft"):
        # Merge adapters into the full-precision weights, not into the 4-bit ones of QLoRA training.
        values["model"]["peft"]["quantize"] = None
    backbone: Backbone = instantiate(values["model"])
    model = backbone.load_model()
    load_weights(model, weights)
    if has_adapters(model):
        merge(model)
    _convert(model, dtype)
    _copy_files(Path(backbone.weights_folder()), folder)
    try:
        with disk_errors():
            write_as_plain_text(folder, backbone.plain_tokens)
            _save(model, backbone, folder, shard_size)
    except OSError as error:
        raise CheckpointError(disk_refusal(error, folder) or f"{folder} cannot be written: {error}") from error
    snippet = card_snippet(values, backbone.image_processor, push)
    (folder / "README.md").write_text(model_card(run, values, weights.step, snippet), encoding="utf-8")
    print(f"{weights.file}, step {weights.step}\n\nwritten to {folder}")


def _save(model: PreTrainedModel, backbone: Backbone, folder: Path, shard_size: str) -> None:
    """Write a model's weights and config to a folder with the other files of its checkpoint, and complete these."""
    generation = folder / "generation_config.json"
    given = generation.read_bytes() if generation.is_file() else None
    # Without one, model.generate() without arguments would not stop at the end of the turn.
    model.generation_config = GenerationConfig(
        eos_token_id=list(backbone.eos_token_ids), pad_token_id=backbone.pad_token_id
    )
    model.save_pretrained(folder, max_shard_size=shard_size)
    if given is not None:
        generation.write_bytes(given)
    if model.config.model_type == "internvl":
        write_processors(model.config, folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o666 & ~_umask())  # save_pretrained makes them readable for their owner only


def _convert(model: PreTrainedModel, dtype: str) -> None:
    """Convert a model's weights, and say so in its config and those of its parts.

    Raises:
        ConfigError: a weight is too large for the type.
    """
    kind = getattr(torch, dtype)
    for part in (model.config, *(getattr(model.config, name) for name in model.config.sub_configs)):
        part.dtype = kind
    model.to(kind)
    if name := first_not_finite(model.named_parameters()):
        raise ConfigError(f"task.dtype is {dtype}, which cannot hold {name}: expected float32 or bfloat16")


def _copy_files(checkpoint: Path, folder: Path) -> None:
    """Copy all files of a checkpoint folder, except weights and model card, byte for byte."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(checkpoint.iterdir()):
            if file.is_file() and file.name != "README.md" and not any(file.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise CheckpointError(f"the files of {checkpoint} cannot be copied to {folder}: {error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
