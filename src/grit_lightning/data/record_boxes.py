"""Checks of the reference boxes of a record: four ordered numbers within the image."""

from __future__ import annotations

from grit_lightning.system.jsonl import is_finite
from grit_lightning.types import Box, Size

BOX_TOLERANCE_PX = 1.0
"""Distance in original pixels by which a box may exceed the image, because annotation tools round to the outer pixel.
Such a box is clipped to the image. A box that exceeds it further is an error: it belongs to another image or scale."""


def box_problem(item: object, size: Size) -> str:
    """Describe the problem of one entry of ``bboxs``; return an empty string if it is valid.

    A width or height of 0 is unknown, and the box is then not compared with the image.
    """
    if not isinstance(item, list) or len(item) != 4:
        return "expected four numbers [x1, y1, x2, y2]"
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in item):
        return "expected four numbers [x1, y1, x2, y2]"
    if not all(map(is_finite, item)):
        return "expected finite numbers"
    if all(0 <= value <= 1 for value in item) and max(size) != 1:
        return "expected original pixels, not shares of the sides"
    if 0 in size:
        return ""
    limits = (*size, *size)
    if any(
        not -BOX_TOLERANCE_PX <= value <= limit + BOX_TOLERANCE_PX for value, limit in zip(item, limits, strict=True)
    ):
        return f"expected a box within the {size[0]} × {size[1]} px image"
    x1, y1, x2, y2 = clamped(item, size)
    if x1 >= x2 or y1 >= y2:
        return "expected x1 < x2 and y1 < y2"
    return ""


def clamped(item: list[float], size: Size) -> Box:
    """Return the box clipped to the image, in original pixels."""
    width, height = size
    x1, y1, x2, y2 = (max(0.0, float(value)) for value in item)
    return min(x1, width), min(y1, height), min(x2, width), min(y2, height)
