"""Stored completions drawn on their images, as pictures for a notebook, a tracker or a document."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from grit_lightning.data.images import load_image
from grit_lightning.runs.records import images_of, placed_boxes, regions_of
from grit_lightning.types import Box

COLOURS = ("#e6007e", "#0077cc", "#e67700", "#1a9850", "#7b3fe4", "#00a3a3", "#c2a200", "#a0522d")
"""Colours of boxes, or of completions, in their order; the ninth has that of the first."""

REFERENCE = "#111111"
"""Colour of reference boxes, which are dashed."""

_INVALID = (3, 4)
_DASH = (7, 5)
"""Pixels drawn and left out of the outlines of invalid boxes and of reference boxes."""


def drawn(*records: Mapping[str, Any], longest_side: int | None = None) -> Image.Image:
    """Draw stored rollouts or predictions: their images in a row, with the boxes that were written and those expected.

    One completion has a colour for each box; several, of one sample, have a colour each.

    Args:
        records: records of ``runs.records``, all of one sample.
        longest_side: longest side of each image in pixels, to which larger ones are scaled; ``None`` for no limit.

    Raises:
        DataError: an image cannot be read.
    """
    images = images_of(records[0])
    pictures = [scaled(load_image(image, str(image.path)), longest_side) for image in images]
    scales = [picture.width / image.size[0] for picture, image in zip(pictures, images, strict=True)]
    for region in regions_of(records[0]):
        _outline(pictures[region.image], region.box, scales[region.image], "white", None)
        _outline(pictures[region.image], region.box, scales[region.image], REFERENCE, _DASH)
    for number, record in enumerate(records):
        for index, box, image in placed_boxes(record):
            pattern = None if record["boxes"][index]["valid"] else _INVALID
            colour = COLOURS[(number if len(records) > 1 else index) % len(COLOURS)]
            _outline(pictures[image], box, scales[image], colour, pattern)
    return side_by_side(pictures)[0]


def side_by_side(images: Sequence[Image.Image]) -> tuple[Image.Image, list[int]]:
    """Return the images in one row on white, and the x coordinate in pixels at which each begins."""
    if len(images) == 1:
        return images[0], [0]
    offsets = [0, *accumulate(image.width for image in images)]
    row = Image.new("RGB", (offsets[-1], max(image.height for image in images)), "white")
    for image, x in zip(images, offsets, strict=False):
        row.paste(image, (x, 0))
    return row, offsets[:-1]


def jpeg(picture: Image.Image, *, quality: int) -> bytes:
    """Return a picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def scaled(picture: Image.Image, longest_side: int | None) -> Image.Image:
    """Return a picture, scaled down if a side is longer than ``longest_side`` pixels; ``None`` for no limit."""
    if longest_side is None or max(picture.size) <= longest_side:
        return picture
    return ImageOps.contain(picture, (longest_side, longest_side))


def _outline(picture: Image.Image, box: Box, scale: float, colour: str, pattern: tuple[int, int] | None) -> None:
    """Draw the outline of a box, corners in order and kept near the image: a model may write any number."""
    xs = sorted(min(max(value * scale, -2.0), picture.width + 2.0) for value in box[0::2])
    ys = sorted(min(max(value * scale, -2.0), picture.height + 2.0) for value in box[1::2])
    pen = ImageDraw.Draw(picture)
    if pattern is None:
        pen.rectangle((xs[0], ys[0], xs[1], ys[1]), outline=colour, width=2)
        return
    on, off = pattern
    for y in ys:
        for x in range(round(xs[0]), round(xs[1]) + 1, on + off):
            pen.line((x, y, min(x + on, xs[1]), y), fill=colour, width=2)
    for side in xs:
        for begin in range(round(ys[0]), round(ys[1]) + 1, on + off):
            pen.line((side, begin, side, min(begin + on, ys[1])), fill=colour, width=2)
