"""Creation of a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grit_lightning.errors import ConfigError
from grit_lightning.runs import inputs as run_inputs
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import write_atomic


def create(
    path: Path | str,
    *,
    composed_yaml: str,
    config_yaml: str,
    inputs: run_inputs.Inputs,
    manifest: Mapping[str, Any],
) -> RunFolder:
    """Create a run folder, or turn an existing folder without a run into one. Call it on one process only.

    The manifest is written last: a folder that a killed process left without one is no run, and is used again.

    Args:
        path: path of the run folder.
        composed_yaml: content of ``composed.yaml``.
        config_yaml: content of ``config.yaml``.
        inputs: content of ``inputs.json``.
        manifest: content of ``manifest.json`` (``manifest.manifest``).

    Raises:
        ConfigError: the folder already contains a run or files of something else, or cannot be written.
    """
    run = RunFolder(Path(path))
    own = {run.config_file, run.composed_file, run.inputs_file}
    folders = {run.checkpoints, run.rollouts}
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        if run.manifest_file.exists():
            raise ConfigError(
                f"{run.path} already holds a run: continue it with resume={run.path} or choose another out=…."
            )
        taken = sorted(own & set(run.path.iterdir()))
        if taken and not set(run.path.iterdir()) <= {*own, *folders, run.lock_file}:
            raise ConfigError(f"out={run.path} cannot be the run folder: {taken[0]} is in the way.")
        for folder in folders:
            folder.mkdir(exist_ok=True)
        write_atomic(run.composed_file, composed_yaml)
        write_atomic(run.config_file, config_yaml)
        run_inputs.write(run.inputs_file, inputs)
        write_atomic(run.manifest_file, json.dumps(manifest, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        where = error.filename or "while its files were written"
        raise ConfigError(f"out={run.path} cannot be the run folder: {error.strerror} ({where}).") from error
    return run
