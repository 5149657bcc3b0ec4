"""The version of a prompt, and the names of the prompts in ``conf/prompt``.

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from grit_lightning.system.paths import conf_dir


def prompt_version(template: str, prefill: str) -> str:
    """Twelve hexadecimal digits that change with the text around the question and with what the answer begins with."""
    return hashlib.sha256(f"{template}\0{prefill}".encode()).hexdigest()[:12]


@cache
def known_prompts() -> dict[str, str]:
    """The version of each prompt of this package by its name, such as ``grounded``."""
    names = sorted(file.stem for file in (conf_dir() / "prompt").glob("*.yaml"))
    return {name: prompt_version(**_values(name)) for name in names}


def prompt_name(version: str) -> str:
    """The name of a prompt of this package, or the version of another."""
    return next((name for name, known in known_prompts().items() if known == version), version)


def _values(name: str) -> dict[str, Any]:
    """A prompt as Hydra composes it: the files that it starts from, in their order, then its own values."""
    own = OmegaConf.to_container(OmegaConf.load(conf_dir() / "prompt" / f"{name}.yaml"))
    assert isinstance(own, dict)
    values: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        values |= {} if parent == "_self_" else _values(parent)
    return values | {str(key): value for key, value in own.items()}
