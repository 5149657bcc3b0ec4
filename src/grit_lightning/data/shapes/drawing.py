"""Draws scenes: antialiased shapes on a shaded background.

The background grows redder to the right and bluer downwards, by the same amount for every pixel: as light and
perspective do in a photograph, it lets a patch tell where it is, which a small vision tower that knows only relative
positions would take very long to find out.
"""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw

from grit_lightning.data.shapes.scenes import COLOURS, Scene
from grit_lightning.types import Size

SUPERSAMPLING = 4
"""Shapes are drawn this much larger and averaged down: exact integer arithmetic, so equal on every machine."""

SHADING = (3, 5)
"""Numerator and denominator of the background's rise of red and blue, in 8-bit levels a pixel."""


def draw_scene(scene: Scene) -> Image.Image:
    """Returns the scene as an RGB image of ``scene.size`` pixels."""
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
    """The shading to the right and downwards, from 0, each an 8-bit image of this size."""
    width, height = size
    numerator, denominator = SHADING
    across, down = Image.new("L", (width, 1)), Image.new("L", (1, height))
    across.putdata([numerator * x // denominator for x in range(width)])
    down.putdata([numerator * y // denominator for y in range(height)])
    return across.resize(size, Image.Resampling.NEAREST), down.resize(size, Image.Resampling.NEAREST)


@lru_cache(maxsize=1024)
def _coverage(form: str, side: int) -> Image.Image:
    """How much of each pixel the shape covers: 8-bit, ``side`` pixels a side, which the shape fills."""
    length = side * SUPERSAMPLING
    mask = Image.new("L", (length, length))
    pen = ImageDraw.Draw(mask)
    if form == "circle":
        pen.ellipse((0, 0, length - 1, length - 1), fill=255)
    else:
        pen.polygon([(round(u * (length - 1)), round(v * (length - 1))) for u, v in _outline(form)], fill=255)
    return mask.reduce(SUPERSAMPLING)


def _outline(form: str) -> list[tuple[float, float]]:
    """Corners of a polygon that fills the unit square, y down."""
    outlines = {
        "square": [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)],
        "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    }
    return outlines[form]
