"""A new run folder for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from grit_lightning.runs.run_folder import RunFolder
from support.run_folders import create


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "run")
