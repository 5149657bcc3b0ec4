"""Random weights for a checkpoint folder that has a config but no weights, kept as an ordinary Hugging Face folder."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig
from transformers.utils import PushToHubMixin

from grit_lightning.errors import CheckpointError
from grit_lightning.system.files import build_folder_once, replacing_folder
from grit_lightning.system.paths import cache_folder


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

    def build(target: Path) -> None:
        # On the CPU whatever the device around: the generators of others draw other numbers.
        with torch.random.fork_rng(), torch.device("cpu"):
            torch.manual_seed(seed)
            model = AutoModelForImageTextToText.from_config(copy.deepcopy(config), dtype=torch.float32)  # writes to it
        with replacing_folder(target) as empty:
            for part in (model, *parts):
                part.save_pretrained(empty)

    try:
        build_folder_once(folder, build)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror or error}): set GRIT_LIGHTNING_CACHE to another folder"
        ) from error
    return folder
