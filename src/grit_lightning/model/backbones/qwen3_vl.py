"""Qwen3-VL (arXiv 2511.21631), dense models only: Hugging Face checkpoints of model type ``qwen3_vl``.

Differences from Qwen2.5-VL: patches have 16 pixels, so image sides are multiples of 32; features of several vision
layers are added to the first language layers; boxes are written in thousandths of the image's width and height.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from grit_lightning.model.backbones.qwen2_5_vl import Qwen25VL
from grit_lightning.types import Size


class Qwen3VL(Qwen25VL):
    """Image handling of Qwen3-VL."""

    name: ClassVar[str] = "Qwen3-VL"
    # Tokens of the Thinking models, whose chat template uses them. The Instruct models share the tokenizer.
    untrained_tokens: ClassVar[tuple[str, ...]] = ("<think>", "</think>")
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks."),
        "projector": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
        "language": ("model.language_model.", "lm_head."),
    }

    def box_space(self, resized: Size) -> Size:
        """Return the space in which boxes are written: thousandths of each side."""
        return (1000, 1000)
