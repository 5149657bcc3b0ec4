"""Conversion of InternVL checkpoints from their original layout to that of transformers, without running their code."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.model.conversion.cached import is_original, native_folder, source_folder
    from grit_lightning.model.conversion.safetensors_files import require_whole

__all__ = ["is_original", "native_folder", "require_whole", "source_folder"]

__getattr__ = lazy_face(
    __name__,
    {
        "cached": ["is_original", "native_folder", "source_folder"],
        "safetensors_files": ["require_whole"],
    },
)
