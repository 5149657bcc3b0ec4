"""``task=convert``: a checkpoint in its original layout, as an ordinary Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from grit_lightning.app.output_folder import refuse_taken
from grit_lightning.app.startup import prepare
from grit_lightning.model.conversion import internvl
from grit_lightning.model.conversion.cached import source_folder


def convert_checkpoint(cfg: DictConfig, *, checkpoint: str) -> Path:
    """Write a checkpoint of ``InternVLChatModel`` in the layout of transformers to ``out``; returns that folder.

    Args:
        cfg: the composed config.
        checkpoint: a folder, or a hub id, which is downloaded.

    Raises:
        UserError: a config value or checkpoint that cannot be used, before anything is written.
    """
    prepare(cfg)
    folder = Path(cfg.out).expanduser().absolute()
    refuse_taken(folder)
    internvl.convert(source_folder(checkpoint), folder)
    print(f"{checkpoint}, converted to the layout of transformers\n\nwritten to {folder}")
    return folder
