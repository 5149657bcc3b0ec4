"""``task=export``: write the trained model of a run as an ordinary Hugging Face folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import HfApi, snapshot_download
from hydra.utils import instantiate
from omegaconf import DictConfig
from transformers import GenerationConfig, PreTrainedModel

from grit_lightning.app import config
from grit_lightning.app.output_folder import refuse_taken
from grit_lightning.app.overrides import changed_run_config, given_overrides
from grit_lightning.app.startup import prepare
from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.model.adapters import has_adapters, merge
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.runs import run_folder as runs
from grit_lightning.tasks.model_card import model_card
from grit_lightning.training.checkpoint_weights import load_weights, read_weights

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.index.json", "*.gguf", "*.onnx")
"""Files of the checkpoint that are not copied: weights in any format and their indexes, which the export replaces."""


def export_model(
    cfg: DictConfig,
    *,
    dtype: Literal["float32", "bfloat16", "float16"],
    shard_size: str,
    push: str | None,
    private: bool,
) -> Path:
    """Write the trained weights of the run ``ckpt`` and the other files of its checkpoint to ``out``; return ``out``.

    Adapters are merged into the weights. Tokenizer, processor, chat template and generation config are copied from the
    checkpoint byte for byte.

    Args:
        cfg: the composed config.
        dtype: type of the stored weights.
        shard_size: maximum size of a weight file, such as ``5GB``.
        push: hub repository ``ORGANISATION/NAME`` to upload the folder to; ``None`` for no upload.
        private: create that repository as private, if it does not exist.

    Raises:
        UserError: a config value or the run folder cannot be used (raised before anything is written), or the upload
            fails.
    """
    if cfg.ckpt is None:
        raise ConfigError("ckpt is null, expected the run folder to export")
    if push is not None and push.count("/") != 1:
        raise ConfigError(f"task.push is {push!r}, expected ORGANISATION/NAME")
    config.check(cfg)
    folder = Path(cfg.out).expanduser().absolute()
    refuse_taken(folder)
    run, checkpoint = runs.open_checkpoint(Path(cfg.ckpt).expanduser().absolute())
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
    _copy_files(backbone.weights_folder(), folder)
    generation = folder / "generation_config.json"
    given = generation.read_bytes() if generation.is_file() else None
    # Without one, model.generate() without arguments would not stop at the end of the turn.
    model.generation_config = GenerationConfig(
        eos_token_id=list(backbone.eos_token_ids), pad_token_id=backbone.pad_token_id
    )
    _convert(model, getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard_size)
    if given is not None:
        generation.write_bytes(given)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o666 & ~_umask())  # save_pretrained makes them readable for their owner only
    (folder / "README.md").write_text(model_card(run, values, weights.step), encoding="utf-8")
    print(f"{weights.file}, step {weights.step}\n\nwritten to {folder}")
    if push is not None:
        print(f"uploaded to {_push(folder, push, private)}")
    return folder


def _convert(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Convert a model's weights, and say so in its config and those of its parts."""
    for part in (model.config, *(getattr(model.config, name) for name in model.config.sub_configs)):
        part.dtype = dtype
    return model.to(dtype)


def _copy_files(checkpoint: str, folder: Path) -> None:
    """Copy all files of a checkpoint folder or hub id, except weights and model card, byte for byte."""
    try:
        source = Path(checkpoint)
        if not source.is_dir():
            source = Path(snapshot_download(checkpoint, ignore_patterns=list(WEIGHTS)))
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name != "README.md" and not any(file.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise CheckpointError(f"the files of {checkpoint} cannot be copied to {folder}: {error}") from error


def _push(folder: Path, repository: str, private: bool) -> str:
    """Upload a folder to the hub with the token of ``hf auth login`` or HF_TOKEN, and return the repository's URL."""
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of grit_lightning")
    except Exception as error:  # errors of the hub and of its HTTP library share no base class
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder} is written, but could not be uploaded to {repository}: {reason}") from error
    return f"{hub.endpoint}/{repository}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
