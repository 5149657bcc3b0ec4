"""Checkpoints in layouts that transformers does not read, turned into those it does, without running their code."""

from grit_lightning.model.conversion.cached import is_original, native_folder, source_folder
from grit_lightning.model.conversion.safetensors_files import require_whole

__all__ = ["is_original", "native_folder", "require_whole", "source_folder"]
