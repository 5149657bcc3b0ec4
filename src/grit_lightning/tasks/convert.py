"""``task=convert``: convert a checkpoint from its original layout to an ordinary Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from grit_lightning.app.output_folder import claimed
from grit_lightning.app.overrides import is_default_output, output_path
from grit_lightning.app.startup import prepare
from grit_lightning.model.conversion import internvl
from grit_lightning.model.conversion.cached import source_folder


def convert_checkpoint(cfg: DictConfig, *, checkpoint: str) -> Path:
    """Convert a checkpoint of ``InternVLChatModel`` to the layout of transformers, write it to ``out``, return ``out``.

    Args:
        cfg: the composed config.
        checkpoint: a folder, or a hub id to download from.

    Raises:
        UserError: a config value or the checkpoint cannot be used; raised before anything is written.
    """
    prepare(cfg)
    with claimed(output_path(cfg), next_free=is_default_output()) as folder:
        internvl.convert(source_folder(checkpoint), folder)
    print(f"{checkpoint}, converted to the layout of transformers\n\nwritten to {folder}")
    return folder
