"""The command line as a user meets it: a process of its own, in a folder of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from grit_lightning.system.paths import asset

SHAPES = asset("shapes20")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cli(_own_process_settings: None) -> Cli:
    """Run ``python -m grit_lightning`` in ``cwd`` with one thread."""

    def run(*arguments: str, cwd: Path, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *python, "-m", "grit_lightning", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A copy of the twenty bundled samples, to be spoilt: ``data.root=mine``."""
    return shutil.copytree(SHAPES, tmp_path / "mine")


@pytest.fixture
def listing() -> Callable[[Path], dict[str, str]]:
    """All that is in a folder, with the hash of each file."""

    def hashes(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in sorted(folder.rglob("*"))
        }

    return hashes
