"""Locations of the package's own files: configs, assets and the cache folder."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def conf_dir() -> Path:
    """The folder of configs: inside an installed package, or at the top of the repository in an editable install."""
    return _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"


def asset(name: str) -> Path:
    """A file or folder that is shipped in the package, such as ``tiny`` or ``judge/answer.txt``."""
    return _PACKAGE / "assets" / name


def cache_folder() -> Path:
    """The folder for downloads and generated weights: ``$GRIT_LIGHTNING_CACHE``, or one below ``$XDG_CACHE_HOME``."""
    if folder := os.environ.get("GRIT_LIGHTNING_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "grit_lightning"
