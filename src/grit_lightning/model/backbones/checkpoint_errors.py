"""Errors of transformers about an unusable checkpoint, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from grit_lightning.errors import CheckpointError


@contextmanager
def checkpoint_errors(checkpoint: str) -> Iterator[None]:
    """Turn the exceptions of transformers for an unusable checkpoint into a ``CheckpointError`` of one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: cannot be loaded: {reason}") from error
