"""Test that commands about the config import no slow library."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("flags", [("--help",), ("--cfg", "job"), ("--cfg", "job", "+experiment=qwen3b")], ids=str)
def test_asking_about_the_config_loads_neither_torch_nor_transformers(cli, tmp_path: Path, flags) -> None:
    done = cli(*flags, cwd=tmp_path, python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "transformers", "lightning", "peft", "numpy", "PIL", "matplotlib"}
