"""Checkpoints in layouts that transformers does not read, turned into those it does, without running their code."""

from grit_lightning.conversion.on_the_fly import is_original, native_folder, source_folder
from grit_lightning.conversion.stored_tensors import require_whole

__all__ = ["is_original", "native_folder", "require_whole", "source_folder"]
