"""Checkpoint files of a run: their names, which of them are whole, and the newest one to resume from."""

from __future__ import annotations

import zipfile
from pathlib import Path

from grit_lightning.errors import CheckpointError

LAST_CHECKPOINT = "last.ckpt"
"""Name of the newest checkpoint in ``RunFolder.checkpoints``."""

BEST_CHECKPOINT = "best.ckpt"
"""Name of the checkpoint with the best result on held-out samples (``heldout``)."""


def newest_whole(folder: Path) -> Path:
    """Return the newest readable checkpoint: ``last.ckpt``, or that of the highest step if it was torn by a kill.

    Args:
        folder: the run's ``checkpoints/``.

    Raises:
        CheckpointError: there is no readable checkpoint.
    """
    steps = sorted(folder.glob("step_*.ckpt"), reverse=True)
    written = [path for path in (folder / LAST_CHECKPOINT, *steps) if path.exists()]
    for path in written:
        if is_whole(path):
            return path
    if written:
        raise CheckpointError(f"{folder}: none of the {len(written)} checkpoints here can be read.")
    raise CheckpointError(f"{folder.parent}: this run has no checkpoint yet.")


def is_whole(path: Path) -> bool:
    """Tell whether a checkpoint file is complete: ``torch.save`` writes a zip archive, whose directory comes last."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
