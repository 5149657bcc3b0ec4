"""Writing files so that a reader, or a killed process, never meets half of one; the folder of what can be had again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where this package keeps what it can get again: ``$GRIT_LIGHTNING_CACHE``, or under ``$XDG_CACHE_HOME``."""
    if folder := os.environ.get("GRIT_LIGHTNING_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "grit_lightning"


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


def write_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_line(path: Path, line: str) -> None:
    """Append one line to ``path`` in a single write, and see it to disk."""
    with path.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
