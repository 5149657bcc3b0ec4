"""The manifest of a run: the information that is needed to repeat it.

It contains no user name, host name or environment variable, so that a run folder can be shared.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.runs.inputs import HASHED_IMAGES
from grit_lightning.system.files import sha256
from grit_lightning.system.paths import home_folder
from grit_lightning.types import Sample

_PACKAGES = (
    "grit-lightning",
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "flash-attn",
    "hydra-core",
    "omegaconf",
    "numpy",
    "pillow",
)


def manifest(*, seed: int, overrides: Sequence[str], data_sha256: Mapping[str, str]) -> dict[str, Any]:
    """Return a JSON-ready description of this process, its machine and its inputs.

    Args:
        seed: the run's seed.
        overrides: command-line overrides, as given.
        data_sha256: SHA-256 in hexadecimal by path of the data file (``files.sha256``).
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "overrides": [without_home(override) for override in overrides],
        "data_sha256": {without_home(path): digest for path, digest in data_sha256.items()},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git(),
        "cpu_count": os.cpu_count(),
        "gpus": _gpus(),
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the content of a manifest.

    Raises:
        DataError: the file is not a manifest.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found | {"overrides": list(found["overrides"])}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not the manifest of a run ({error})", str(path)) from error


def data_sha256(samples: Sequence[Sample]) -> dict[str, str]:
    """Return the SHA-256 of each data file and, unless there are many images, one over those of each file, by path."""
    images: dict[str, list[Path]] = {}
    for sample in samples:
        images.setdefault(sample.source.rpartition(":")[0], []).extend(image.path for image in sample.images)
    hashes = {file: sha256(Path(file)) for file in images}
    for file, paths in images.items():
        if len(set(paths)) <= HASHED_IMAGES:
            each = {path: sha256(path) for path in set(paths)}
            hashes[f"{file} (its images)"] = hashlib.sha256("".join(each[path] for path in paths).encode()).hexdigest()
    return hashes


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    """Return the name and memory (GiB) of each visible CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": device.name, "memory_gib": round(device.total_memory / 2**30, 1)} for device in devices]


def _git() -> dict[str, Any] | None:
    """Return the commit of this package's git checkout and a flag for modified files; ``None`` outside a checkout."""
    # An installed package may lie inside an unrelated repository, so check that git tracks this file.
    if _run_git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _run_git("rev-parse", "HEAD")
    changes = _run_git("status", "--porcelain")
    return None if commit is None else {"commit": commit, "modified": changes != ""}


def _run_git(*arguments: str) -> str | None:
    """Return the output of git in this package's folder; ``None`` if git is missing, takes too long or fails."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def without_home(text: str) -> str:
    """Return ``text`` with the home folder, which usually contains a user name, replaced by ``~``."""
    home = home_folder()
    return text if home is None or home == home.parent else text.replace(f"{home}/", "~/")
