"""The folder that a task writes to: refused before the work is done where it cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from grit_lightning.errors import ConfigError


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds something, or that lies where none can be made, before the work is done."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"out={folder} is taken: choose another out=…")
    taken = next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None)
    if taken is not None:
        raise ConfigError(f"out={folder} cannot be made: {taken} is in the way")


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before the work is done."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder} cannot be written: {there} is read-only; give another folder as out=…")
