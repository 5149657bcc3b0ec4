"""Locks between processes, on files that the operating system unlocks when their holder dies."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from grit_lightning.errors import ConfigError


@contextmanager
def held(lock_file: Path, *, busy: str | None = None) -> Iterator[None]:
    """Hold a lock while the block runs, and remove the lock file afterwards. The file says who holds it.

    Args:
        lock_file: path of the lock file; its folder must exist.
        busy: error message if another process holds the lock, to which the holder is added; ``None`` to wait for that
            process.

    Raises:
        ConfigError: another process holds the lock, and ``busy`` is given.
        OSError: the lock file cannot be created.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=busy is None)
    except Timeout:
        raise ConfigError(f"{busy} ({_holder(lock_file)})") from None
    try:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        lock_file.write_text(f"process {os.getpid()} on {platform.node()} since {now}\n", encoding="utf-8")
        yield
    finally:
        lock_file.unlink(missing_ok=True)  # before release, so that no other process's lock file is removed
        lock.release()


def _holder(lock_file: Path) -> str:
    try:
        return lock_file.read_text(encoding="utf-8", errors="replace").strip()[:200] or "a process that has just begun"
    except OSError:  # the holder has just ended
        return "a process that has just ended"
