"""Checkpoint files of a run: their names, which of them are whole, how they are read, and the newest to resume from."""

from __future__ import annotations

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

from grit_lightning.errors import CheckpointError
from grit_lightning.system.slow import announced

log = logging.getLogger(__name__)

LAST_CHECKPOINT = "last.ckpt"
"""Name of the newest checkpoint in ``RunFolder.checkpoints``."""

BEST_CHECKPOINT = "best.ckpt"
"""Name of the checkpoint with the best result on held-out samples (``heldout``)."""


def newest_whole(folder: Path) -> Path:
    """Return the newest whole checkpoint: ``last.ckpt``, or that of the highest step if it is damaged.

    Args:
        folder: the run's ``checkpoints/``.

    Raises:
        CheckpointError: there is no whole checkpoint.
    """
    written = written_checkpoints(folder)
    for path in written:
        if is_whole(path):
            return path
        log.warning("%s is damaged and is left out", path)
    if written:
        raise CheckpointError(f"{folder}: none of the {len(written)} checkpoints here can be read.")
    raise CheckpointError(f"{folder.parent}: this run has no checkpoint yet.")


def written_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint files in a run's ``checkpoints/``, whole or not: ``last.ckpt``, then descending steps."""
    steps = sorted(folder.glob("step_*.ckpt"), reverse=True)
    return [path for path in (folder / LAST_CHECKPOINT, *steps) if path.exists()]


def is_whole(path: Path) -> bool:
    """Tell whether a checkpoint file is complete and undamaged.

    ``torch.save`` writes a zip archive, which has a CRC-32 of each member and its directory at the end. All of the file
    is read.
    """
    try:
        with announced(f"checking {path}"), zipfile.ZipFile(path) as archive:
            return archive.testzip() is None and any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception as error:  # depending on the damaged byte, zipfile raises almost anything
        log.debug("%s: %s", path, error)
        return False


def read_checkpoint(path: Path | str, **options: Any) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Args:
        path: the checkpoint file.
        options: options of ``torch.load``, such as ``map_location``.

    Raises:
        CheckpointError: the file is no checkpoint, or refers to something other than tensors and plain values, which
            would have to be run to be read.
    """
    import torch

    try:
        checkpoint = torch.load(path, **options | {"weights_only": True})
    except pickle.UnpicklingError:  # its message advises to turn this protection off
        raise CheckpointError(
            f"{path} is not read, because it holds more than tensors and plain values: reading it could run code"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).split("\n", 1)[0]
        raise CheckpointError(f"{path} cannot be read: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint
