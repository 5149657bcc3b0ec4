"""A cache of judge replies on disk, so that no question is paid for twice.

It is an SQLite file with a write-ahead log, which several processes and threads can use at the same time. A row holds
a reply and its question as JSON text, so this command shows them::

    sqlite3 FOLDER/replies.sqlite 'SELECT entry FROM replies'
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from grit_lightning.errors import ConfigError
from grit_lightning.judge.chat.reply import Reply
from grit_lightning.system.printable import printable

T = TypeVar("T")

FILE = "replies.sqlite"
"""Name of the file in the cache folder."""

_log = logging.getLogger(__name__)

_TROUBLE = (OSError, sqlite3.Error)
"""Exceptions raised for a full disk, a lost file system, a locked file or a file that is no database."""

_BUSY_TIMEOUT = 10.0
"""Maximum wait in seconds for a lock that another process holds."""

_PAUSE = 60.0
"""Seconds without another attempt after a failure, so that a locked file does not delay every question."""

_LARGE_ROW = 32_768
"""Size in bytes that few rows exceed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, entry TEXT NOT NULL, used REAL NOT NULL);
CREATE INDEX IF NOT EXISTS replies_by_use ON replies (used);
"""
_BYTES = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_DELETE_OLDEST = "DELETE FROM replies WHERE key IN (SELECT key FROM replies ORDER BY used LIMIT ?)"


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOptions:
    """Folder and size limit of the reply cache.

    Attributes:
        folder: folder of the cache; runs with the same folder share it.
        max_bytes: maximum size of the database in bytes; the least recently used replies are deleted first.
    """

    folder: str
    max_bytes: int

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError(f"judge.cache.max_bytes is {self.max_bytes}, expected at least 1")


class ReplyCache:
    """Replies by key. If the cache cannot be read or written, it warns once and acts as if it were empty.

    The run then goes on, but questions may be paid for again. Any thread may call any method. The file is opened by the
    first call, with permissions for its owner alone. No connection is inherited by a forked process: all are closed
    before a fork, and each process opens its own when it next needs it.

    Args:
        options: folder and size limit.
    """

    def __init__(self, options: CacheOptions) -> None:
        self._path = Path(options.folder) / FILE
        self._max_bytes = options.max_bytes
        self._connection: sqlite3.Connection | None = None
        self._paused_until: dict[str, float] = {}
        self._warned = False
        with _lock:
            _caches.add(self)

    def get(self, key: str) -> Reply | None:
        """Return the reply stored under ``key``, or ``None``."""
        row = self._run("read", lambda database: _execute(database, "SELECT entry FROM replies WHERE key = ?", key))
        reply = _reply_in(row[0]) if row else None
        if reply is not None:
            update = "UPDATE replies SET used = ? WHERE key = ?"
            self._run("write", lambda database: _execute(database, update, time.time(), key))
        return reply

    def put(self, key: str, reply: Reply, about: dict[str, Any]) -> None:
        """Store a reply.

        Args:
            key: key of the question (``Request.key``).
            reply: reply to store.
            about: description of the question for human readers, JSON-ready.
        """
        # ASCII, so that a terminal that shows the entry executes nothing, and because UTF-8 lacks lone surrogates.
        entry = json.dumps({**about, "reply": asdict(reply)}, ensure_ascii=True)

        def store(database: sqlite3.Connection) -> None:
            _execute(database, "BEGIN IMMEDIATE")
            _execute(database, "INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", key, entry, time.time())
            self._make_room(database)
            _execute(database, "COMMIT")

        self._run("write", store)

    def close(self) -> None:
        """Close the file."""
        with _lock:
            self._disconnect()

    def _make_room(self, database: sqlite3.Connection) -> None:
        while (excess := _execute(database, _BYTES)[0] - self._max_bytes) > 0:
            # One row usually. More at a time if a former limit was much larger, but less than would be too many.
            count = max(1, excess // _LARGE_ROW)
            if not database.execute(_DELETE_OLDEST, (count,)).rowcount:
                break

    def _run(self, kind: str, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return the result of ``action`` on the open database, or ``None`` if it fails or this kind is paused."""
        with _lock:
            if time.monotonic() < self._paused_until.get(kind, 0.0):
                return None
            try:
                if self._connection is None:
                    self._connection = _open(self._path)
                return action(self._connection)
            except _TROUBLE as error:
                self._disconnect()  # rolls back
                self._paused_until[kind] = time.monotonic() + _PAUSE
                trouble = printable(str(error))  # it may quote the file
                first, self._warned = not self._warned, True
        if first:
            _log.warning(
                "the judge's cache %s cannot be used: %s; questions may be paid for again", self._path.parent, trouble
            )
        return None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


# SQLite does not wait for a lock when another process switches the new file to the write-ahead log, hence the retries.
@retry(retry=retry_if_exception(_is_busy), stop=stop_after_delay(_BUSY_TIMEOUT), wait=wait_fixed(0.02), reraise=True)
def _open(path: Path) -> sqlite3.Connection:
    """Return a connection to the file, which is created if necessary, for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # A file that exists is not opened here: closing it would end the locks of this process's other connections.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    with ExitStack() as failed:
        failed.callback(database.close)
        database.text_factory = _decoded
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # a power failure may lose the last replies, no more
        database.executescript(_SCHEMA)
        failed.pop_all()
    return database


def _execute(database: sqlite3.Connection, statement: str, *values: object) -> Any:
    """Execute a statement and return its first row, or ``None``."""
    return database.execute(statement, values).fetchone()


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _reply_in(entry: object) -> Reply | None:
    """Return the reply of a row, or ``None`` if this class did not write it: only JSON text is read, never a BLOB."""
    if not isinstance(entry, str):
        return None
    try:
        reply = Reply(**json.loads(entry)["reply"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    counts = (reply.prompt_tokens, reply.completion_tokens)
    return reply if isinstance(reply.text, str) and all(isinstance(count, int) for count in counts) else None


# ---- forks ----
# SQLite forbids to carry a connection into a forked process, even to close it there.

_caches: weakref.WeakSet[ReplyCache] = weakref.WeakSet()
_lock = threading.Lock()
"""Held during every use of a connection, so that none is in use when a process forks."""


def _close_before_fork() -> None:
    _lock.acquire()
    for cache in _caches:
        cache._disconnect()


def _unlock_in_parent() -> None:
    _lock.release()


def _unlock_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(before=_close_before_fork, after_in_parent=_unlock_in_parent, after_in_child=_unlock_in_child)
