"""Checks of a task's output folder, made before the task does its work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from grit_lightning.errors import ConfigError
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import versions_of
from grit_lightning.system.locks import held
from grit_lightning.system.rank import is_first_process

_NEXT_FREE = "GRIT_LIGHTNING_OUT"
"""Environment variable in which the first process of a run tells those that it starts the folder that it chose."""


@contextmanager
def claimed_run(path: Path, *, next_free: bool) -> Iterator[Path]:
    """Make a folder for a new run and hold its lock while the block runs; only the first process does.

    If the block fails before it has put anything into the folder, the folder is removed.

    Args:
        path: the folder, which must hold no run.
        next_free: use ``path_v2``, ``path_v3``, … if the folder exists: several jobs may start in the same second.

    Raises:
        ConfigError: the folder holds a run, is in use, or cannot be made.
    """
    if not is_first_process():
        yield Path(os.environ.get(_NEXT_FREE, path))
        return
    made = _missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not next_free and path.exists() and not path.is_dir():
            raise ConfigError(f"out={path} cannot be the run folder: {path} is in the way.")
        folder = _first_free(path) if next_free else path
        folder.mkdir(exist_ok=True)
        os.environ[_NEXT_FREE] = str(folder)
        run = RunFolder(folder)
        with held(run.lock_file, busy=f"out={folder} is in use by another run: choose another out=…"):
            yield folder
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(path.parent):
            raise
        raise ConfigError(f"out={path} cannot be the run folder: {error.strerror} ({error.filename}).") from error
    finally:
        os.environ.pop(_NEXT_FREE, None)
        _remove_empty(path, *made)


def _first_free(path: Path) -> Path:
    """Make and return the first folder of ``path``, ``path_v2``, … that does not exist."""
    for folder in versions_of(path):
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("there is always another version")


@contextmanager
def claimed(path: Path, *, next_free: bool = False) -> Iterator[Path]:
    """Choose an output folder and keep other tasks from writing it while the block runs.

    Args:
        path: the folder, which must be missing or empty.
        next_free: use ``path_v2``, ``path_v3``, … if the folder exists or another task is writing it.

    Raises:
        ConfigError: the folder is taken, another task is writing it, or it cannot be written.
    """
    folder, lock = _next_free_and_its_lock(path) if next_free else (path, _lock(path))
    refuse_taken(folder)
    require_writable(folder)
    busy = f"another process is writing {folder}: wait for it, or choose another out=…"
    made = _missing_parents(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(lock, busy=busy):
            yield folder
    except OSError as error:
        if error.filename not in (str(lock), str(folder.parent)):
            raise
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; give another folder as out=…") from error
    finally:
        _remove_empty(*made)


def _missing_parents(path: Path) -> list[Path]:
    """Return the parents that do not exist, the innermost first."""
    return [one for one in path.parents if not one.exists()]


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):  # it holds something, as it should
            folder.rmdir()


def _next_free_and_its_lock(path: Path) -> tuple[Path, Path]:
    """Return the first of ``path``, ``path_v2``, … that neither exists nor is being written, and its lock file."""
    return next((one, _lock(one)) for one in versions_of(path) if not one.exists() and not _lock(one).exists())


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def require_name(name: str) -> str:
    """Return ``name`` if it can be the name, or a part of the name, of a folder.

    Raises:
        ConfigError: it is empty, contains a slash or a control character, or is too long for a file name.
    """
    if not name or name in (".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > 200:
        raise ConfigError(f"name is {name!r}, expected a name for a folder, such as baseline")
    return name


def refuse_taken(folder: Path) -> None:
    """Check that a task can create its output folder, so that a long task does not fail at its end.

    Raises:
        ConfigError: the folder is not empty, is a file, or lies below a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"out={folder} is taken: choose another out=…")
    taken = next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None)
    if taken is not None:
        raise ConfigError(f"out={folder} cannot be made: {taken} is in the way")


def require_writable(folder: Path) -> None:
    """Check that the folder, or its closest existing parent, is writable.

    Raises:
        ConfigError: it is read-only.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder} cannot be written: {there} is read-only; give another folder as out=…")
