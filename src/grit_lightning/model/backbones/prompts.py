"""Prompt versions (content hashes), and the names of the prompts in ``conf/prompt``.

This module does not import torch, so that tasks without a model can use it and start quickly.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from grit_lightning.errors import ConfigError
from grit_lightning.system.paths import conf_dir
from grit_lightning.types import IMAGE_MARK


def prompt_version(template: str, prefill: str) -> str:
    """Return twelve hexadecimal digits that identify a prompt: a hash of its template and its prefill."""
    return hashlib.sha256(f"{template}\0{prefill}".encode()).hexdigest()[:12]


def require_question(template: str) -> None:
    """Raise ConfigError if a template lacks ``{question}``, or contains the mark that places a question's images."""
    if "{question}" not in template:
        raise ConfigError("prompt.template lacks {question}, so the model would never see the question")
    if IMAGE_MARK in template:
        raise ConfigError(f"prompt.template contains {IMAGE_MARK}, which only questions may: it places their images")


@cache
def known_prompts() -> dict[str, str]:
    """Return the version of each prompt of this package, keyed by its name, such as ``grounded``."""
    names = sorted(file.stem for file in (conf_dir() / "prompt").glob("*.yaml"))
    return {name: prompt_version(**prompt_values(name)) for name in names}


def prompt_name(version: str) -> str:
    """Return the name of this package's prompt with the given version, or the version itself if there is none."""
    return next((name for name, known in known_prompts().items() if known == version), version)


def prompt_values(name: str) -> dict[str, Any]:
    """Return ``template`` and ``prefill`` of one of this package's prompts.

    They are composed as Hydra does: those of its defaults in their order, then its own.
    """
    own = OmegaConf.to_container(OmegaConf.load(conf_dir() / "prompt" / f"{name}.yaml"))
    assert isinstance(own, dict)
    values: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        values |= {} if parent == "_self_" else prompt_values(parent)
    return values | {str(key): value for key, value in own.items()}
