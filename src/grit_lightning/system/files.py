"""Atomic writes of files and folders, and unused file names."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grit_lightning.errors import CheckpointError, DataError
from grit_lightning.system.locks import held


def require_regular(path: Path) -> None:
    """Refuse to read a path that is a pipe, socket or device, because reading it may never end.

    A path that is missing or is a folder passes: to open it fails at once, with a reason.

    Raises:
        DataError: the path is such a special file.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError("is not a regular file", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without an exception.

    The new content is on disk before the old content is removed: write beside it, fsync, rename, fsync the folder.
    """
    # In the target's folder, because a rename is atomic only within one file system. The name is always the same, so
    # that the next attempt overwrites the leftover of a killed process, and leftovers do not fill the disk.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Flush a complete file to disk, then rename it to ``path`` in the same folder."""
    _fsync(temporary)
    os.replace(temporary, path)
    _fsync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` when the block ends without an exception.

    ``path`` must be missing or an empty folder. Missing parent folders are created. Only one process at a time may
    replace the same folder.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # always the same name, as in replacing()
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


def build_folder_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return a cached folder, created with ``build`` unless it exists. Of several processes one builds, the rest wait.

    Args:
        folder: the folder to create, below the cache folder.
        build: function that creates the folder at the given path atomically (:func:`replacing_folder`).

    Raises:
        CheckpointError: the cache cannot be written.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():  # another process may have created it during the wait
                build(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror or error}): set GRIT_LIGHTNING_CACHE to another folder"
        ) from error
    return folder


def write_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Append one line to ``path`` in a single write, and flush it to disk."""
    with path.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions_of(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield ``path``, then endlessly the same name with ``_v2``, ``_v3``, … before ``suffix``."""
    yield path
    stem = path.name.removesuffix(suffix)
    for version in itertools.count(2):
        yield path.with_name(f"{stem}_v{version}{suffix}")


def free_path(path: Path, suffix: str = "") -> Path:
    """Return the first of :func:`versions_of` that does not exist."""
    return next(candidate for candidate in versions_of(path, suffix) if not candidate.exists())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
