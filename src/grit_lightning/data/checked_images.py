"""Memory of the images that were found to be good, so that a second start need not open them again."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from grit_lightning.errors import ConfigError
from grit_lightning.system.locks import held
from grit_lightning.system.paths import cache_folder
from grit_lightning.system.slow import announced
from grit_lightning.types import ImageFile

log = logging.getLogger(__name__)

FILE = "checked_images.sqlite"
"""Name of the file in the cache folder."""

State = tuple[int, int]
"""Bytes and modification time in nanoseconds of an image file."""

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
        self._file = None if folder is None else folder / FILE

    @classmethod
    def of_user(cls) -> CheckedImages:
        """Return the memory in the cache folder; one that remembers nothing for a user without a cache folder."""
        try:
            return cls(cache_folder())
        except ConfigError:
            return cls(None)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process after the other run the block, so that each finds what those before it have checked."""
        with ExitStack() as stack:
            if self._file is not None:
                try:
                    self._file.parent.mkdir(parents=True, exist_ok=True)
                    with announced("waiting for another process that checks images"):
                        stack.enter_context(held(self._file.with_suffix(".lock")))
                except OSError as error:
                    log.info("%s cannot be locked (%s): images are checked all the same", self._file, error)
            yield

    def unknown(self, images: Iterable[ImageFile], *, decoded: bool) -> dict[ImageFile, State | None]:
        """Return the images that have not passed the check as they are now, with their states.

        A file that does not exist is among them, with ``None``.

        Args:
            images: the images to look up.
            decoded: whether the check decoded all pixels; otherwise one of the header is enough.
        """
        states = {image: _state(image.path) for image in images}
        if self._file is None or not self._file.is_file():
            return states
        query = "SELECT bytes, modified FROM images WHERE path = ? AND width = ? AND height = ? AND decoded >= ?"
        try:
            with closing(self._open(self._file)) as connection:
                rows = connection.cursor()
                known = {one: rows.execute(query, (*_key(one), int(decoded))).fetchone() for one in states}
        except _TROUBLE as error:
            log.info("%s cannot be read (%s): all images are checked", self._file, error)
            return states
        return {image: state for image, state in states.items() if state is None or state != known[image]}

    def remember(self, images: Mapping[ImageFile, State | None], *, decoded: bool) -> None:
        """Remember images that have passed a check, as they were before it; see :meth:`unknown`."""
        if self._file is None:
            return
        rows = [(*_key(image), *state, int(decoded)) for image, state in images.items() if state is not None]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open(self._file)) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", rows)
        except _TROUBLE as error:
            log.info("%s cannot be written (%s): the next start checks all images again", self._file, error)

    @staticmethod
    def _open(file: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=_BUSY_TIMEOUT)
        try:
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _key(image: ImageFile) -> tuple[str, int, int]:
    return os.path.abspath(image.path), *image.size


def _state(path: Path) -> State | None:
    """Return the state of a file; ``None`` if there is no such file."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns
