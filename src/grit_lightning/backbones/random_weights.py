"""Random weights for a checkpoint folder that has a config but no weights, kept as an ordinary Hugging Face folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig
from transformers.utils import PushToHubMixin


def cache_folder() -> Path:
    """Where this package keeps what it can make again: ``$GRIT_LIGHTNING_CACHE``, or under ``$XDG_CACHE_HOME``."""
    if folder := os.environ.get("GRIT_LIGHTNING_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "grit_lightning"


def random_checkpoint(config: PreTrainedConfig, seed: int, *parts: PushToHubMixin) -> Path:
    """A folder with weights drawn from ``seed`` for the model of ``config``, float32, and the other parts beside them.

    Made once and cached by content, so that it is loaded like any other checkpoint.

    Args:
        config: of the whole model.
        seed: of the weights.
        parts: what else makes up a checkpoint and has ``save_pretrained``: tokenizer, image processor.
    """
    digest = hashlib.sha256(f"{config.to_json_string()}/{seed}/{torch.__version__}".encode()).hexdigest()[:16]
    folder = cache_folder() / "random_weights" / f"{config.model_type}-{digest}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    for part in (model, *parts):
        part.save_pretrained(partial)
    try:
        partial.rename(folder)
    except OSError:  # another process made the same folder meanwhile
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)
    return folder
