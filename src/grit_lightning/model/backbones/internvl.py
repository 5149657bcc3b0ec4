"""InternVL3 and InternVL2.5 (arXiv 2504.10479, 2412.05271): checkpoints of model type ``internvl``, the native layout.

The image is resized to the nearest allowed aspect ratio and cut into square tiles. If there is more than one tile, a
thumbnail of the whole image is added. Boxes are written in thousandths of the image's width and height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import GotOcr2ImageProcessorPil, PreTrainedConfig

from grit_lightning.model.backbones.family import ImageInput, ImageLimits


class InternVL:
    """Image handling of InternVL3 and InternVL2.5."""

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
    untrained_tokens: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.vision_tower.",),
        "projector": ("model.multi_modal_projector.",),
        "language": ("model.language_model.", "lm_head."),
    }

    def __init__(self, folder: Path, config: PreTrainedConfig, limits: ImageLimits) -> None:
        self.tokens_per_tile = config.image_seq_length
        self.image_processor = GotOcr2ImageProcessorPil.from_pretrained(folder)
        self.image_processor.crop_to_patches = True
        self.image_processor.min_patches, self.image_processor.max_patches = 1, limits.max_tiles

    def read(self, image: Image) -> ImageInput:
        """Cut an image into tiles and count their image tokens."""
        tiles = self.image_processor(images=image, return_tensors="pt")["pixel_values"]
        return ImageInput({"pixel_values": tiles}, len(tiles) * self.tokens_per_tile, (1000, 1000))

    def positions(self, is_image_S: Tensor, images: Sequence[ImageInput]) -> Tensor:
        """Return positions on one axis, shape (1, S), counting image tokens like text tokens."""
        return torch.arange(len(is_image_S))[None]
