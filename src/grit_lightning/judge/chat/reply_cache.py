"""A cache of judge replies on disk, so that no question is paid for twice.

It uses ``diskcache``: an SQLite file that several processes can use at the same time. Above the size limit, the least
recently used replies are deleted. Values are JSON text, so ``sqlite3 cache.db 'select value from Cache'`` shows them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diskcache  # type: ignore[import-untyped]
from diskcache.core import MODE_PICKLE  # type: ignore[import-untyped]

from grit_lightning.errors import ConfigError
from grit_lightning.judge.chat.reply import Reply

_log = logging.getLogger(__name__)

_TROUBLE = (OSError, sqlite3.Error, diskcache.Timeout)
"""Exceptions raised for a full disk, a lost file system or a locked file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOptions:
    """Folder and size limit of the reply cache.

    Attributes:
        folder: folder of the cache; runs with the same folder share it.
        max_bytes: maximum size of all replies together in bytes; the least recently used are deleted first.
    """

    folder: str
    max_bytes: int

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError(f"judge.cache.max_bytes is {self.max_bytes}, expected at least 1")


class ReplyCache:
    """Replies by key. If the cache cannot be read or written, it warns once and acts as if it were empty.

    The run then goes on, but questions may be paid for again.

    Args:
        options: folder and size limit.
    """

    def __init__(self, options: CacheOptions) -> None:
        self._folder = options.folder
        self._warned = False
        self._cache: diskcache.Cache | None = None
        try:
            Path(options.folder).mkdir(parents=True, exist_ok=True)
            # A file that is no database is found here: diskcache would raise and leave its own connection open.
            with closing(sqlite3.connect(Path(options.folder) / "cache.db")) as connection:
                connection.execute("PRAGMA schema_version")
            self._cache = diskcache.Cache(
                options.folder,
                disk=_TextDisk,
                size_limit=options.max_bytes,
                eviction_policy="least-recently-used",
                timeout=10,
            )
            # A connection belongs to the thread that opened it: this one closes its own, which it no longer uses.
            self._cache.close()
        except _TROUBLE as error:
            self._warn(error)

    def get(self, key: str) -> Reply | None:
        """Return the reply stored under ``key``, or ``None``."""
        if self._cache is None:
            return None
        try:
            text = self._cache.get(key)
            reply = json.loads(text)["reply"] if isinstance(text, str) else None
            return None if reply is None else Reply(**reply)
        except _TROUBLE as error:
            self._warn(error)
        except (ValueError, LookupError, TypeError):  # not written by this class
            return None
        return None

    def put(self, key: str, reply: Reply, about: dict[str, Any]) -> None:
        """Store a reply.

        Args:
            key: key of the question (``Request.key``).
            reply: reply to store.
            about: description of the question for human readers, JSON-ready.
        """
        if self._cache is None:
            return
        try:
            self._cache.set(key, json.dumps({**about, "reply": asdict(reply)}))
        except _TROUBLE as error:
            self._warn(error)

    def close(self) -> None:
        """Close the SQLite file."""
        if self._cache is not None:
            self._cache.close()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "the judge's cache %s cannot be used: %s; questions may be paid for again", self._folder, error
            )


class _TextDisk(diskcache.Disk):
    """Reads and writes text only, so that a pickle placed in the cache by someone else is never loaded."""

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> object:
        return None if mode == MODE_PICKLE else super().fetch(mode, filename, value, read)
