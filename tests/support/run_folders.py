"""Run folders made without a training."""

from __future__ import annotations

from pathlib import Path

from grit_lightning.runs import run_folder as runs
from grit_lightning.runs.run_folder import RunFolder


def create(path: Path | str, seed: int = 0) -> RunFolder:
    return runs.create(
        path, composed_yaml=f"seed: ${{oc.env:S,{seed}}}\n", config_yaml=f"seed: {seed}\n", manifest={"seed": seed}
    )
