"""Qwen2.5-VL (arXiv 2502.13923): Hugging Face checkpoints of model type ``qwen2_5_vl``, of any size.

The image is resized so that both sides are multiples of 28 pixels (patches of 14 pixels, 2 × 2 patches merged into a
token). Boxes are written in absolute pixels of the resized image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedConfig, Qwen2VLImageProcessorPil

from grit_lightning.model.backbones.family import ImageInput, ImageLimits
from grit_lightning.types import Size


class Qwen25VL:
    """Image handling of Qwen2.5-VL."""

    name: ClassVar[str] = "Qwen2.5-VL"
    image_token: ClassVar[str] = "<|image_pad|>"
    around_image: ClassVar[tuple[str, str]] = ("", "")
    never_sampled: ClassVar[tuple[str, ...]] = (
        "<|im_start|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    )
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.visual.patch_embed.", "model.visual.blocks."),
        "projector": ("model.visual.merger.",),
        "language": ("model.language_model.", "lm_head."),
    }

    def __init__(self, folder: Path, config: PreTrainedConfig, limits: ImageLimits) -> None:
        # Not AutoImageProcessor, which needs torchvision, in some versions even to be imported.
        self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.image_processor.size = {"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels}

    def read(self, image: Image) -> ImageInput:
        """Cut an image into patches and count its image tokens."""
        processor = self.image_processor
        vision = processor(images=image, return_tensors="pt")
        grid = vision["image_grid_thw"]
        return ImageInput(
            vision={"pixel_values": vision["pixel_values"], "image_grid_thw": grid},
            num_tokens=int(grid.prod()) // processor.merge_size**2,
            box_space=self.box_space((int(grid[0, 2]) * processor.patch_size, int(grid[0, 1]) * processor.patch_size)),
        )

    def box_space(self, resized: Size) -> Size:
        """Return the space in which boxes are written: that of the resized image, in pixels."""
        return resized

    def positions(self, is_image_S: Tensor, image: ImageInput) -> Tensor:
        """Return positions on three axes, shape (3, S), see :func:`mrope_positions`."""
        return mrope_positions(is_image_S, image.vision["image_grid_thw"][0], self.image_processor.merge_size)


def mrope_positions(is_image_S: Tensor, grid_3: Tensor, merge: int) -> Tensor:
    """Return the rotary positions (time, height, width) of a prompt with one image, int64, shape (3, S).

    Text tokens advance all three axes together. Image tokens share one time and use their row and column as height and
    width. Text after the image continues after the image's largest position (arXiv 2409.12191 §2.1, "M-RoPE").

    Args:
        is_image_S: bool, shape (S,), true for the image tokens, which are contiguous.
        grid_3: ``(time, height, width)`` of the image in patches.
        merge: number of patches along each side that are merged into one token.
    """
    length, start = is_image_S.shape[0], int(is_image_S.long().argmax())
    rows, columns = int(grid_3[1]) // merge, int(grid_3[2]) // merge
    after = torch.arange(length - start - rows * columns) + start + max(rows, columns)
    image = torch.stack(
        [
            torch.zeros(rows * columns, dtype=torch.long),
            torch.arange(rows).repeat_interleave(columns),
            torch.arange(columns).repeat(rows),
        ]
    )
    return torch.cat([torch.arange(start).expand(3, -1), image + start, after.expand(3, -1)], dim=1)
