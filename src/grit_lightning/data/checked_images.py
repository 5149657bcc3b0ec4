"""Memory of the images that were found to be good, so that a second start need not open them again."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from grit_lightning.errors import ConfigError
from grit_lightning.system.paths import cache_folder
from grit_lightning.types import ImageFile

log = logging.getLogger(__name__)

FILE = "checked_images.sqlite"
"""Name of the file in the cache folder."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    path TEXT, width INTEGER, height INTEGER, bytes INTEGER, modified INTEGER, decoded INTEGER,
    PRIMARY KEY (path, width, height)
) WITHOUT ROWID;
"""
_TROUBLE = (OSError, sqlite3.Error)
_BUSY_TIMEOUT = 10.0
"""Maximum wait in seconds for a lock that another process holds."""


class CheckedImages:
    """Images that passed a check, by path, declared size, bytes and modification time.

    Several processes may use one file. Where it cannot be read or written, nothing is remembered: a check then takes
    longer, and a run goes on.

    Args:
        folder: folder of the file, which is made when something is remembered; ``None`` to remember nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    def of_user(cls) -> CheckedImages:
        """Return the memory in the cache folder; one that remembers nothing for a user without a cache folder."""
        try:
            return cls(cache_folder())
        except ConfigError:
            return cls(None)

    def unknown(self, images: Iterable[ImageFile], *, decoded: bool) -> list[ImageFile]:
        """Return the images that have not passed the check as they are now, missing ones included.

        Args:
            images: the images to look up.
            decoded: whether the check decoded all pixels; otherwise one of the header is enough.
        """
        images = list(images)
        if self.folder is None or not (self.folder / FILE).is_file():
            return images
        query = "SELECT bytes, modified, decoded FROM images WHERE path = ? AND width = ? AND height = ?"
        try:
            with closing(self._open()) as connection:
                rows = connection.cursor()
                found = [rows.execute(query, (os.path.abspath(one.path), *one.size)).fetchone() for one in images]
        except _TROUBLE as error:
            log.info("%s cannot be read (%s): all images are checked", self.folder / FILE, error)
            return images
        return [
            image
            for image, row in zip(images, found, strict=True)
            if row is None or row[:2] != _state(image.path) or row[2] < decoded
        ]

    def remember(self, images: Iterable[ImageFile], *, decoded: bool) -> None:
        """Remember images that have passed a check; see :meth:`unknown`."""
        if self.folder is None:
            return
        states = [(image, _state(image.path)) for image in images]
        rows = [(os.path.abspath(one.path), *one.size, *state, int(decoded)) for one, state in states if state]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", rows)
        except _TROUBLE as error:
            log.info("%s cannot be written (%s): the next start checks all images again", self.folder / FILE, error)

    def _open(self) -> sqlite3.Connection:
        assert self.folder is not None
        connection = sqlite3.connect(self.folder / FILE, timeout=_BUSY_TIMEOUT)
        connection.executescript(_SCHEMA)
        return connection


def _state(path: Path) -> tuple[int, int] | None:
    """Return bytes and modification time in nanoseconds; ``None`` if there is no such file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
