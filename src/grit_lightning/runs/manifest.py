"""The manifest of a run: what would be needed to repeat it.

No user name, host name or environment variable is in it, so that a run folder can be passed on.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

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
    """A JSON-ready description of this process, its machine and its inputs.

    Args:
        seed: the run's seed.
        overrides: command-line overrides, as given.
        data_sha256: SHA-256 by data file (``files.sha256``).
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


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    """Name and memory (GiB) of each visible CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": device.name, "memory_gib": round(device.total_memory / 2**30, 1)} for device in devices]


def _git() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from, and whether files differ from it; ``None`` outside a checkout."""
    # A package installed into a virtual environment may lie inside some other repository: ask whether it is tracked.
    if _run_git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _run_git("rev-parse", "HEAD")
    changes = _run_git("status", "--porcelain")
    return None if commit is None else {"commit": commit, "modified": changes != ""}


def _run_git(*arguments: str) -> str | None:
    """What git prints in this package's folder, or ``None`` where git is absent, slow or refuses."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def without_home(text: str) -> str:
    """``text`` with the home folder, which usually holds a user name, written as ``~``."""
    home = str(Path.home())
    return text.replace(f"{home}/", "~/") if len(home) > 1 else text
