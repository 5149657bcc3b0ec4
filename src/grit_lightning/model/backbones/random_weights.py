"""Random weights for a checkpoint that has a config but no weights, cached as an ordinary Hugging Face folder."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig
from transformers.utils import PushToHubMixin

from grit_lightning.model.conversion.safetensors_files import disk_errors
from grit_lightning.system.files import build_folder_once, replacing_folder
from grit_lightning.system.paths import cache_folder


def random_checkpoint(config: PreTrainedConfig, seed: int, *parts: PushToHubMixin) -> Path:
    """Return a checkpoint folder with random float32 weights, made on first use and then cached.

    The folder's name contains a hash of config, seed and torch version. It is loaded like any other checkpoint.

    Args:
        config: config of the whole model.
        seed: seed of the weights.
        parts: other parts of the checkpoint to save beside the weights: tokenizer, image processor.

    Raises:
        CheckpointError: the cache cannot be written.
    """
    digest = hashlib.sha256(f"{config.to_json_string()}/{seed}/{torch.__version__}".encode()).hexdigest()[:16]
    folder = cache_folder() / "random_weights" / f"{config.model_type}-{digest}"

    def build(target: Path) -> None:
        # Always on the CPU, because other devices' generators draw other numbers from the same seed.
        with torch.random.fork_rng(), torch.device("cpu"):
            torch.manual_seed(seed)
            model = AutoModelForImageTextToText.from_config(copy.deepcopy(config), dtype=torch.float32)  # edits config
        with replacing_folder(target) as empty:
            for part in (model, *parts):
                with disk_errors():
                    part.save_pretrained(empty)

    return build_folder_once(folder, build)
