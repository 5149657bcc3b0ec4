"""Run folders made without a training."""

from __future__ import annotations

from pathlib import Path

from grit_lightning.runs import new_run
from grit_lightning.runs.run_folder import RunFolder

INPUTS = {"data": {}, "prompt": {}, "reward": {}, "judge": {}}


def create(path: Path | str, seed: int = 0) -> RunFolder:
    return new_run.create(
        path,
        composed_yaml=f"seed: ${{oc.env:S,{seed}}}\n",
        config_yaml=f"seed: {seed}\n",
        inputs=INPUTS,
        manifest={"seed": seed},
    )
