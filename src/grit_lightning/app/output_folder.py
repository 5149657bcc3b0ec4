"""Checks of a task's output folder, made before the task does its work."""

from __future__ import annotations

import os
from pathlib import Path

from grit_lightning.errors import ConfigError


def refuse_taken(folder: Path) -> None:
    """Check that a task can create its output folder, so that a long task does not fail at its end.

    Raises:
        ConfigError: the folder is not empty, is a file, or lies below a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"out={folder} is taken: choose another out=…")
    taken = next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None)
    if taken is not None:
        raise ConfigError(f"out={folder} cannot be made: {taken} is in the way")


def require_writable(folder: Path) -> None:
    """Check that the folder, or its closest existing parent, is writable.

    Raises:
        ConfigError: it is read-only.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder} cannot be written: {there} is read-only; give another folder as out=…")
