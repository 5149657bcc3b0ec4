"""Samples with one and with several images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from grit_lightning.types import Box, ImageFile, Region, Sample, Size


def one_image(
    name: str, question: str, answer: str, image: Path, size: Size, boxes: Iterable[Box], *texts: str, **more: Any
) -> Sample:
    """Return a sample with one image; ``texts`` are its dataset, split and source."""
    return Sample(name, question, answer, (ImageFile(image, size),), tuple(map(Region, boxes)), *texts, **more)


def several_images(question: str, sizes: Iterable[Size], **more: Any) -> Sample:
    """Return a sample with an image of each size, which are not on the disk; see :func:`noise`."""
    images = tuple(ImageFile(Path(f"{index}.png"), size) for index, size in enumerate(sizes))
    return Sample("f/1", question, "2", images, (), "vsr", "train", "f.jsonl:1", **more)


def noise(sizes: Iterable[Size]) -> list[Image.Image]:
    """Return an image of random pixels for each size, all different."""
    pixels = [
        torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(index)).byte()
        for index, (width, height) in enumerate(sizes)
    ]
    return [Image.fromarray(one.numpy()) for one in pixels]
