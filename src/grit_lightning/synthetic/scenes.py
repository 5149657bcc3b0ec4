"""Scenes of the shapes world: what there is, where, and to which split it belongs."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from PIL import Image

from grit_lightning.types import Box, Size

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 39, 40),
    "blue": (31, 84, 200),
    "green": (32, 140, 54),
    "yellow": (250, 214, 30),
    "purple": (132, 48, 168),
    "orange": (250, 128, 16),
}
FORMS: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "star")
BACKGROUNDS: tuple[Colour, ...] = (
    (255, 255, 255),
    (236, 236, 236),
    (205, 205, 205),
    (244, 234, 216),
    (220, 232, 246),
    (222, 240, 222),
    (246, 224, 230),
    (52, 52, 56),
    (24, 24, 24),
)
CANVASES: tuple[Size, ...] = (
    *((112, 112), (140, 140), (168, 168), (200, 200), (224, 224)),
    *((168, 112), (196, 140), (200, 150), (224, 126), (224, 168)),
    *((112, 168), (140, 196), (150, 200), (112, 224), (168, 224)),
)
"""Sizes in pixels: not all multiples of 28, so that boxes must be scaled to the image a processor makes of them."""

MARGIN_PX = 4
"""Objects keep this distance from each other and from the edges, in pixels."""

T = TypeVar("T")


@dataclass(frozen=True, order=True, slots=True)
class Shape:
    """One object; it fills the square of half-side ``radius`` around its centre, in original pixels."""

    colour: str
    form: str
    x: int
    y: int
    radius: int

    @property
    def label(self) -> str:
        """Its name, e.g. ``red circle``."""
        return f"{self.colour} {self.form}"

    @property
    def box(self) -> Box:
        """Its box, xyxy in original pixels."""
        return (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


@dataclass(frozen=True, slots=True)
class Scene:
    """A canvas with objects that neither touch nor cover each other; all lengths in original pixels."""

    size: Size
    background: Colour
    shapes: tuple[Shape, ...]


def pick(rng: Random, options: Sequence[T]) -> T:
    """A uniform choice. Of ``Random``, only ``random()`` gives the same values in every version of Python."""
    return options[int(rng.random() * len(options))]


def between(rng: Random, low: int, high: int) -> int:
    """A uniform integer of ``low`` … ``high``, both included."""
    return low + int(rng.random() * (high - low + 1))


def make_scene(rng: Random, names: Sequence[tuple[str, str]]) -> Scene:
    """Returns a scene of random size and background with one object of each (colour, form), at random places.

    Objects that do not fit are made smaller until they do.
    """
    size = pick(rng, CANVASES)
    for attempt in itertools.count():
        places = _places(rng, size, len(names), 0.95**attempt)
        if places:
            break
    shapes = tuple(Shape(*name, *place) for name, place in zip(names, places, strict=True))
    background = _marked(pick(rng, BACKGROUNDS), layout_split(size, shapes))
    return Scene(size, background, shapes)


def layout_split(size: Size, shapes: Sequence[Shape]) -> Split:
    """The split that a layout belongs to: a bit of its SHA-256 digest, in whatever order the objects are listed."""
    described = repr((size, [(s.colour, s.form, s.x, s.y, s.radius) for s in sorted(shapes)]))
    return SPLITS[hashlib.sha256(described.encode()).digest()[0] & 1]


def image_split(image: Image.Image) -> Split:
    """The split that an RGB image of this world belongs to, read from its top left pixel."""
    pixel = image.getpixel((0, 0))
    if not isinstance(pixel, tuple):
        raise ValueError(f"expected an RGB image, not mode {image.mode}")
    return SPLITS[int(pixel[2]) & 1]


def _marked(colour: Colour, split: Split) -> Colour:
    """The colour with the split in the lowest bit of its blue value."""
    red, green, blue = colour
    return red, green, blue & ~1 | SPLITS.index(split)


def _places(rng: Random, size: Size, count: int, scale: float) -> list[tuple[int, int, int]]:
    """Random ``(x, y, radius)`` of objects that keep their distance; empty when they did not all fit."""
    places: list[tuple[int, int, int]] = []
    short = min(size)
    for _ in range(40 * count):
        if len(places) == count:
            break
        radius = max(1, round(between(rng, short // 14, short // 6) * scale))
        inset = MARGIN_PX + radius
        x, y = between(rng, inset, size[0] - inset), between(rng, inset, size[1] - inset)
        if all(max(abs(x - u), abs(y - v)) >= radius + other + MARGIN_PX for u, v, other in places):
            places.append((x, y, radius))
    return places if len(places) == count else []
