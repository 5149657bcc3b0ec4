"""Samples with one image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grit_lightning.types import Box, ImageFile, Region, Sample, Size


def one_image(
    name: str, question: str, answer: str, image: Path, size: Size, boxes: Iterable[Box], *texts: str, **more: Any
) -> Sample:
    """Return a sample with one image; ``texts`` are its dataset, split and source."""
    return Sample(name, question, answer, (ImageFile(image, size),), tuple(map(Region, boxes)), *texts, **more)
