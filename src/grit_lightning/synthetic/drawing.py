"""Draws scenes: antialiased shapes on a plain background."""

from __future__ import annotations

import math
from functools import lru_cache

from PIL import Image, ImageDraw

from grit_lightning.synthetic.scenes import COLOURS, Scene

SUPERSAMPLING = 4
"""Shapes are drawn this much larger and averaged down: exact integer arithmetic, so equal on every machine."""


def draw(scene: Scene) -> Image.Image:
    """Returns the scene as an RGB image of ``scene.size`` pixels."""
    image = Image.new("RGB", scene.size, scene.background)
    for shape in scene.shapes:
        mask = _coverage(shape.form, shape.radius)
        image.paste(COLOURS[shape.colour], (shape.x - shape.radius, shape.y - shape.radius), mask)
    return image


@lru_cache(maxsize=1024)
def _coverage(form: str, radius: int) -> Image.Image:
    """How much of each pixel the shape covers: 8-bit, 2·radius pixels a side, which the shape fills."""
    side = 2 * radius * SUPERSAMPLING
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    if form == "circle":
        pen.ellipse((0, 0, side - 1, side - 1), fill=255)
    else:
        pen.polygon([(round(u * (side - 1)), round(v * (side - 1))) for u, v in _outline(form)], fill=255)
    return mask.reduce(SUPERSAMPLING)


def _outline(form: str) -> list[tuple[float, float]]:
    """Corners of a polygon that fills the unit square, y down."""
    outlines = {
        "square": [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)],
        "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
        "diamond": [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)],
    }
    return outlines.get(form) or _star()


def _star() -> list[tuple[float, float]]:
    """A five-pointed star, point up, stretched to fill the unit square."""
    inner = (3 - math.sqrt(5)) / 2  # the radius of a pentagram's inner corners, its points lying on the unit circle
    angles = [math.pi / 5 * k for k in range(10)]
    corners = [((1, inner)[k % 2] * math.sin(a), -(1, inner)[k % 2] * math.cos(a)) for k, a in enumerate(angles)]
    right, bottom = max(x for x, _ in corners), max(y for _, y in corners)
    return [((x + right) / (2 * right), (y + 1) / (bottom + 1)) for x, y in corners]
