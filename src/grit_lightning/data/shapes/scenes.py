"""Scenes of the shapes world: what there is, where, and to which split it belongs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
FORMS: tuple[str, ...] = ("circle", "square", "triangle")
BACKGROUNDS: tuple[Colour, ...] = tuple((100, green, 100) for green in (130, 150, 170, 190, 210, 230, 250))
"""The colour of the top left corner, from which red rises to the right and blue downwards: see ``drawing``."""

CANVASES: tuple[Size, ...] = (
    *((112, 112), (140, 140), (168, 168), (120, 120)),
    *((140, 112), (168, 112), (168, 140), (160, 120)),
    *((112, 140), (112, 168), (140, 168), (120, 160)),
)
"""Sizes in pixels: not all multiples of 28, so that boxes must be scaled to the image a processor makes of them."""

LATTICE_PX = 7
"""Objects begin and end on multiples of this, in pixels."""

MARGIN_PX = 7
"""Objects keep at least this distance from each other and from the edges, in pixels."""

CountedBy = Literal["both", "form", "colour"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard scenes are to read; from each tuple one is drawn, all equally often.

    Attributes:
        sides_px: sides of objects, in pixels.
        spatial_shapes: numbers of objects in the scene of a spatial question.
        counted_by: what the objects of a counting question are told apart by.
        max_count: the largest answer of a counting question.
        counting_shapes: numbers of objects in the scene of a counting question, whatever the answer; or ``None``.
        beside_counted: for ``None``, numbers of objects beside those counted.
    """

    sides_px: tuple[int, ...]
    spatial_shapes: tuple[int, ...]
    counted_by: tuple[CountedBy, ...]
    max_count: int
    counting_shapes: tuple[int, ...] | None
    beside_counted: tuple[int, ...] = ()


STANDARD = Difficulty(
    sides_px=(35, 42),
    spatial_shapes=(2, 3, 4),
    counted_by=("both", "form", "colour"),
    max_count=3,
    counting_shapes=(3, 4),
)
"""As hard as the bundled model can master."""

HARD = Difficulty(
    sides_px=(28, 35, 42),
    spatial_shapes=(2, 3, 4, 5),
    counted_by=("both", "both", "both", "form", "colour"),
    max_count=4,
    counting_shapes=(4, 5, 6),
)

EARLY = replace(HARD, counting_shapes=None, beside_counted=(1, 2))
"""As the bundled model's first lessons were. How many objects there are tells nearly how many are counted."""

DIFFICULTIES: dict[str, Difficulty] = {"standard": STANDARD, "hard": HARD, "early": EARLY}


@dataclass(frozen=True, order=True, slots=True)
class Shape:
    """One object; it fills the square of ``side`` whose left top corner is at ``(x, y)``, in original pixels."""

    colour: str
    form: str
    x: int
    y: int
    side: int

    @property
    def label(self) -> str:
        """Its name, e.g. ``red circle``."""
        return f"{self.colour} {self.form}"

    @property
    def box(self) -> Box:
        """Its box, xyxy in original pixels."""
        return (self.x, self.y, self.x + self.side, self.y + self.side)


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


def make_scene(rng: Random, names: Sequence[tuple[str, str]], difficulty: Difficulty = STANDARD) -> Scene:
    """Returns a scene of random size and background with one object of each (colour, form), at random places.

    Names that do not fit on the canvas get another one.
    """
    places: list[tuple[int, int, int]] = []
    while len(places) < len(names):
        size = pick(rng, CANVASES)
        places = _places(rng, size, len(names), difficulty.sides_px)
    shapes = tuple(Shape(*name, *place) for name, place in zip(names, places, strict=True))
    background = _marked(pick(rng, BACKGROUNDS), layout_split(size, shapes))
    return Scene(size, background, shapes)


def layout_split(size: Size, shapes: Sequence[Shape]) -> Split:
    """The split that a layout belongs to: a bit of its SHA-256 digest, in whatever order the objects are listed."""
    described = repr((size, [(s.colour, s.form, s.x, s.y, s.side) for s in sorted(shapes)]))
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


def _places(rng: Random, size: Size, count: int, sides: Sequence[int]) -> list[tuple[int, int, int]]:
    """Random ``(x, y, side)`` of objects that keep their distance; fewer than ``count`` when they did not all fit."""
    places: list[tuple[int, int, int]] = []
    for _ in range(20 * count):
        if len(places) == count:
            break
        side = pick(rng, sides)
        x, y = (between(rng, 1, (length - side - MARGIN_PX) // LATTICE_PX) * LATTICE_PX for length in size)
        if all(max(x - u - other, u - x - side, y - v - other, v - y - side) >= MARGIN_PX for u, v, other in places):
            places.append((x, y, side))
    return places
