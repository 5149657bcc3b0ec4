"""Locations of the package's own files: configs, assets and the cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from grit_lightning.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def conf_dir() -> Path:
    """Return the folder of configs: in the package, or in the repository root for an editable install."""
    return _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"


def asset(name: str) -> Path:
    """Return the path of a file or folder shipped with the package, such as ``tiny`` or ``judge/answer.txt``."""
    return _PACKAGE / "assets" / name


def cache_folder() -> Path:
    """Return the folder for downloads and generated weights.

    It is ``$GRIT_LIGHTNING_CACHE`` if set, otherwise ``grit_lightning`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        ConfigError: neither variable is set, and the user has no home folder, as in some containers.
    """
    if folder := os.environ.get("GRIT_LIGHTNING_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "grit_lightning"
    if (home := home_folder()) is None:
        raise ConfigError("there is no home folder for the cache: set GRIT_LIGHTNING_CACHE to a folder")
    return home / ".cache" / "grit_lightning"


def home_folder() -> Path | None:
    """Return the user's home folder; ``None`` for a user who has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and no entry in the password database
        return None
