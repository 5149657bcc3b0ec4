"""Fixtures that run the command line in a separate process and folder, as a user does."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grit_lightning.system.paths import asset
from support.processes import CliServer

SHAPES = asset("shapes20")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cli(_own_process_settings: None) -> Iterator[Cli]:
    """Return a function that runs ``python -m grit_lightning`` in ``cwd``, in a separate process with one thread."""
    server: CliServer | None = None

    def run(*arguments: str, cwd: Path, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
        nonlocal server
        server = server or CliServer()
        if not python and server.can_run(env):
            return server.run(arguments, cwd, env)
        command = [sys.executable, *python, "-m", "grit_lightning", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    yield run
    if server is not None:
        server.close()


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A copy of the twenty bundled samples in the folder ``mine`` that tests may damage."""
    return shutil.copytree(SHAPES, tmp_path / "mine")


@pytest.fixture
def listing() -> Callable[[Path], dict[str, str]]:
    """Return a function that lists a folder: the SHA-256 of each file by relative path."""

    def hashes(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in sorted(folder.rglob("*"))
        }

    return hashes
