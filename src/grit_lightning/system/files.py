"""Files that appear whole or not at all, names that are free, and locks between processes."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from grit_lightning.errors import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends without an exception.

    The new content is on disk before the old is given up: write beside it, fsync, rename, fsync the folder.
    """
    # Beside the target, because a rename is atomic only within one file system. Always the same name, so that what a
    # killed process left is overwritten by the next attempt instead of filling the disk.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a file that is whole to ``path``, in the same folder, after its content is on disk."""
    _fsync(temporary)
    os.replace(temporary, path)
    _fsync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder to put files into, which becomes ``path`` when the block ends without an exception.

    ``path`` may be missing, or an empty folder. Its parents are made. For one process at a time.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # always the same name, see above
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for entry in (*temporary.iterdir(), temporary):
            _fsync(entry)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build_folder_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Make ``folder`` with ``build`` unless it is there. Of several processes one builds, and the others wait.

    Args:
        folder: the folder.
        build: makes the folder it is given, whole or not at all (:func:`replacing_folder`).
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():  # another process may have made it meanwhile
            build(folder)


def write_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Append one line to ``path`` in a single write, and see it to disk."""
    with path.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions_of(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield ``path``, then the same name with ``_v2``, ``_v3``, … before ``suffix``, without end."""
    yield path
    stem = path.name.removesuffix(suffix)
    for version in itertools.count(2):
        yield path.with_name(f"{stem}_v{version}{suffix}")


def free_path(path: Path, suffix: str = "") -> Path:
    """Return the first of :func:`versions_of` that does not exist."""
    return next(candidate for candidate in versions_of(path, suffix) if not candidate.exists())


@contextmanager
def held(lock_file: Path, *, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs, and remove it afterwards.

    Args:
        lock_file: its folder must exist.
        busy: the message if another process holds the lock; ``None`` to wait for that process.

    Raises:
        ConfigError: another process holds the lock, and ``busy`` is given.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=busy is None)
    except Timeout:
        raise ConfigError(busy) from None
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)  # while it is held, so that nobody's new lock is removed
        lock.release()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
