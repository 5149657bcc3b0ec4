"""Drawing of scenes: antialiased shapes on a shaded background.

The background gets redder to the right and bluer towards the bottom, by a constant amount per pixel. Like light and
perspective in a photograph, the shading shows where in the image a patch lies. A small vision tower that encodes only
relative positions would otherwise take very long to learn this.
"""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw

from grit_lightning.data.shapes.scenes import COLOURS, Scene
from grit_lightning.types import Size

SUPERSAMPLING = 4
"""Factor by which shapes are drawn larger before averaging; in exact integers, so equal on every machine."""

SHADING = (3, 5)
"""Numerator and denominator of the slope of the background's red and blue, in 8-bit levels per pixel."""


def draw_scene(scene: Scene) -> Image.Image:
    """Return the scene as an RGB image of ``scene.size`` pixels."""
    red, green, blue = scene.background
    across, down = _ramps(scene.size)
    image = Image.merge(
        "RGB", (across.point(lambda v: v + red), Image.new("L", scene.size, green), down.point(lambda v: v + blue))
    )
    for shape in scene.shapes:
        image.paste(COLOURS[shape.colour], (shape.x, shape.y), _coverage(shape.form, shape.side))
    return image


@lru_cache(maxsize=64)
def _ramps(size: Size) -> tuple[Image.Image, Image.Image]:
    """Return the shading to the right and the shading downwards, two 8-bit images of ``size`` that start at 0."""
    width, height = size
    numerator, denominator = SHADING
    across, down = Image.new("L", (width, 1)), Image.new("L", (1, height))
    across.putdata([numerator * x // denominator for x in range(width)])
    down.putdata([numerator * y // denominator for y in range(height)])
    return across.resize(size, Image.Resampling.NEAREST), down.resize(size, Image.Resampling.NEAREST)


@lru_cache(maxsize=1024)
def _coverage(form: str, side: int) -> Image.Image:
    """Return how much of each pixel a shape covers, an 8-bit image of ``side`` × ``side`` pixels that it fills."""
    length = side * SUPERSAMPLING
    mask = Image.new("L", (length, length))
    pen = ImageDraw.Draw(mask)
    if form == "circle":
        pen.ellipse((0, 0, length - 1, length - 1), fill=255)
    else:
        pen.polygon([(round(u * (length - 1)), round(v * (length - 1))) for u, v in _outline(form)], fill=255)
    return mask.reduce(SUPERSAMPLING)


def _outline(form: str) -> list[tuple[float, float]]:
    """Return the corners of a polygon that fills the unit square, with y pointing down."""
    outlines = {
        "square": [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)],
        "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    }
    return outlines[form]
