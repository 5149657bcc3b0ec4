"""Detection of checkpoints in an original layout, and their one-time conversion into the cache."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from grit_lightning import __version__
from grit_lightning.model.conversion.internvl import convert
from grit_lightning.model.conversion.internvl_config import is_original_config, read_config, require_convertible
from grit_lightning.model.hub import checkpoint_folder, with_weights
from grit_lightning.system.files import build_folder_once
from grit_lightning.system.paths import cache_folder

_SUFFIXES = (".json", ".safetensors", ".txt")
"""Suffixes of the files that make up a checkpoint: config, index, tokenizer and weights, but no code."""


def is_original(folder: Path) -> bool:
    """Tell whether a checkpoint folder is in an original layout and must be converted before use.

    Raises:
        CheckpointError: its ``config.json`` cannot be read.
    """
    return is_original_config(read_config(folder / "config.json"))


def native_folder(checkpoint: str) -> Path:
    """Return the cached native form of a checkpoint in an original layout; convert it on first use.

    Several processes may call this at once: one converts, the others wait. A process killed during the conversion
    leaves no folder that could be mistaken for a complete one.

    Args:
        checkpoint: a folder, or a hub id, in an original layout.

    Raises:
        CheckpointError: the checkpoint cannot be found or converted, or the cache cannot be written.
    """
    source = source_folder(checkpoint)
    folder = cache_folder() / "converted" / f"{checkpoint.strip('./').replace('/', '--')[-80:]}-{_identity(source)}"

    def build(target: Path) -> None:
        print(f"{checkpoint}: converting once to the layout of transformers, into {target}", file=sys.stderr)
        convert(source, target)

    return build_folder_once(folder, build)


def source_folder(checkpoint: str) -> Path:
    """Return the folder of an original checkpoint, for :func:`.internvl.convert` to read.

    For a hub id, the weights are downloaded once its ``config.json`` is known to be convertible.

    Args:
        checkpoint: a folder, or a hub id.

    Raises:
        CheckpointError: there is no such folder or hub id, or its ``config.json`` is not convertible.
    """
    folder = checkpoint_folder(checkpoint)
    require_convertible(read_config(folder / "config.json"), Path(checkpoint))
    return with_weights(checkpoint, folder)


def _identity(source: Path) -> str:
    """Return a hash that changes when a file of the checkpoint does; the path of a hub download contains its commit."""
    stats = [(path, path.stat()) for path in sorted(source.iterdir()) if path.suffix in _SUFFIXES]
    files = [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return hashlib.sha256(repr((__version__, str(source.resolve()), files)).encode()).hexdigest()[:16]
