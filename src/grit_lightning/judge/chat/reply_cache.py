"""Replies on disk, so that no question is paid for twice.

The library is ``diskcache``: an SQLite file that several processes may use at once, kept below a size by leaving out
what was used longest ago. A value is JSON text, so ``sqlite3 cache.db 'select value from Cache'`` shows it.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diskcache  # type: ignore[import-untyped]
from diskcache.core import MODE_PICKLE  # type: ignore[import-untyped]

from grit_lightning.errors import ConfigError
from grit_lightning.judge.chat.reply import Reply

_log = logging.getLogger(__name__)

_TROUBLE = (OSError, sqlite3.Error, diskcache.Timeout)
"""What a full disk, a lost file system or a busy file raises."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOptions:
    """Where replies are kept.

    Attributes:
        folder: shared by all runs that name it.
        max_bytes: of all replies together; those used longest ago leave first.
    """

    folder: str
    max_bytes: int

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError(f"judge.cache.max_bytes is {self.max_bytes}, expected at least 1")


class ReplyCache:
    """Replies by key. A cache that cannot be read or written costs money, not the run: it warns once.

    Args:
        options: where.
    """

    def __init__(self, options: CacheOptions) -> None:
        self._folder = options.folder
        self._warned = False
        self._cache: diskcache.Cache | None = None
        try:
            Path(options.folder).mkdir(parents=True, exist_ok=True)
            self._cache = diskcache.Cache(
                options.folder,
                disk=_TextDisk,
                size_limit=options.max_bytes,
                eviction_policy="least-recently-used",
                timeout=10,
            )
        except _TROUBLE as error:
            self._warn(error)

    def get(self, key: str) -> Reply | None:
        """The reply to a question, ``None`` where it is not known."""
        if self._cache is None:
            return None
        try:
            text = self._cache.get(key)
            reply = json.loads(text)["reply"] if isinstance(text, str) else None
            return None if reply is None else Reply(**reply)
        except _TROUBLE as error:
            self._warn(error)
        except (ValueError, LookupError, TypeError):  # written by something else
            return None
        return None

    def put(self, key: str, reply: Reply, about: dict[str, Any]) -> None:
        """Keep a reply, with what people may want to know of it."""
        if self._cache is None:
            return
        try:
            self._cache.set(key, json.dumps({**about, "reply": asdict(reply)}))
        except _TROUBLE as error:
            self._warn(error)

    def close(self) -> None:
        """Close the file."""
        if self._cache is not None:
            self._cache.close()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "the judge's cache %s cannot be used: %s; what it should keep is asked again", self._folder, error
            )


class _TextDisk(diskcache.Disk):
    """Reads and writes text only: a value that someone else placed here is never unpickled."""

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> object:
        return None if mode == MODE_PICKLE else super().fetch(mode, filename, value, read)
