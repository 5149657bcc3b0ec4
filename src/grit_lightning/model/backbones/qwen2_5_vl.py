"""Qwen2.5-VL (arXiv 2502.13923): Hugging Face checkpoints of model type ``qwen2_5_vl``, of any size.

The image is resized so that both sides are multiples of 28 pixels (patches of 14 pixels, 2 × 2 patches merged into a
token). Boxes are written in absolute pixels of the resized image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    untrained_tokens: ClassVar[tuple[str, ...]] = ()
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

    def positions(self, is_image_S: Tensor, images: Sequence[ImageInput]) -> Tensor:
        """Return positions on three axes, shape (3, S), see :func:`mrope_positions`."""
        grids = [image.vision["image_grid_thw"][0] for image in images]
        return mrope_positions(is_image_S, grids, self.image_processor.merge_size)


def mrope_positions(is_image_S: Tensor, grids: Sequence[Tensor], merge: int) -> Tensor:
    """Return the rotary positions (time, height, width) of a prompt, int64, shape (3, S).

    Text tokens advance all three axes together. The tokens of an image share one time and use their row and column as
    height and width. Text after an image continues after the image's largest position (arXiv 2409.12191 §2.1,
    "M-RoPE").

    Args:
        is_image_S: bool, shape (S,), true for the image tokens; those of one image are contiguous.
        grids: for each image in the order of the prompt, ``(time, height, width)`` in patches, shape (3,).
        merge: number of patches along each side that are merged into one token.
    """
    places = is_image_S.nonzero().flatten()
    parts: list[Tensor] = []
    done = position = 0  # tokens with a position so far, and the next position
    first = 0
    for grid_3 in grids:
        rows, columns = int(grid_3[1]) // merge, int(grid_3[2]) // merge
        start = int(places[first])
        first += rows * columns
        parts.append(torch.arange(start - done).expand(3, -1) + position)
        position += start - done
        parts.append(_image_positions(rows, columns) + position)
        position += max(rows, columns)
        done = start + rows * columns
    parts.append(torch.arange(is_image_S.shape[0] - done).expand(3, -1) + position)
    return torch.cat(parts, dim=1)


def _image_positions(rows: int, columns: int) -> Tensor:
    """Return the positions of the tokens of an image relative to its first one, shape (3, rows · columns)."""
    return torch.stack(
        [
            torch.zeros(rows * columns, dtype=torch.long),
            torch.arange(rows).repeat_interleave(columns),
            torch.arange(columns).repeat(rows),
        ]
    )
