"""InternVL3 and InternVL2.5 (arXiv 2504.10479, 2412.05271): checkpoints of model type ``internvl``, the native layout.

The model reads an image as square tiles: the image resized to the nearest of the allowed aspect ratios and cut up, and
a thumbnail of the whole if there is more than one tile. It writes boxes in thousandths of the image's sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import GotOcr2ImageProcessorPil, PreTrainedConfig

from grit_lightning.model.backbones.family import ImageInput, ImageLimits


class InternVL:
    """The family of InternVL3 and InternVL2.5."""

    name: ClassVar[str] = "InternVL"
    image_token: ClassVar[str] = "<IMG_CONTEXT>"
    around_image: ClassVar[tuple[str, str]] = ("<img>", "</img>")
    never_sampled: ClassVar[tuple[str, ...]] = (
        "<|im_start|>",
        "<img>",
        "</img>",
        "<IMG_CONTEXT>",
        "<video>",
        "<|image_pad|>",
        "<|video_pad|>",
    )
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.vision_tower.",),
        "projector": ("model.multi_modal_projector.",),
        "language": ("model.language_model.", "lm_head."),
    }

    def __init__(self, checkpoint: str, config: PreTrainedConfig, limits: ImageLimits) -> None:
        self.tokens_per_tile = config.image_seq_length
        self.image_processor = GotOcr2ImageProcessorPil.from_pretrained(checkpoint)
        self.image_processor.crop_to_patches = True
        self.image_processor.min_patches, self.image_processor.max_patches = 1, limits.max_tiles

    def read(self, image: Image) -> ImageInput:
        """An image as tiles."""
        tiles = self.image_processor(images=image, return_tensors="pt")["pixel_values"]
        return ImageInput({"pixel_values": tiles}, len(tiles) * self.tokens_per_tile, (1000, 1000))

    def positions(self, is_image_S: Tensor, image: ImageInput) -> Tensor:
        """One axis: image tokens are counted as text is."""
        return torch.arange(len(is_image_S))[None]
