"""Scenes of the shapes world: objects, their places, and the split that a scene belongs to."""

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
"""Colours of the top left corner. Red rises from it to the right and blue downwards, see :mod:`.drawing`."""

CANVASES: tuple[Size, ...] = (
    *((112, 112), (140, 140), (168, 168), (120, 120)),
    *((140, 112), (168, 112), (168, 140), (160, 120)),
    *((112, 140), (112, 168), (140, 168), (120, 160)),
)
"""Canvas sizes in pixels. Not all are multiples of 28, so image processors resize them and boxes must be scaled."""

LATTICE_PX = 7
"""Grid spacing in pixels: the edges of objects lie on multiples of it."""

MARGIN_PX = 7
"""Minimum distance in pixels between objects, and between objects and the edges of the canvas."""

CountedBy = Literal["both", "form", "colour"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Difficulty of scenes and questions. From each tuple, one entry is drawn uniformly.

    Attributes:
        sides_px: side lengths of objects, in pixels.
        spatial_shapes: numbers of objects in the scene of a spatial question.
        counted_by: attributes that select the counted objects: ``colour``, ``form`` or ``both``.
        max_count: largest answer of a counting question.
        counting_shapes: total numbers of objects in the scene of a counting question, independent of the answer;
            ``None`` to use ``beside_counted``.
        beside_counted: numbers of objects in addition to the counted ones, if ``counting_shapes`` is ``None``.
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
"""Default difficulty, the hardest that the bundled model can learn."""

HARD = Difficulty(
    sides_px=(28, 35, 42),
    spatial_shapes=(2, 3, 4, 5),
    counted_by=("both", "both", "both", "form", "colour"),
    max_count=4,
    counting_shapes=(4, 5, 6),
)

EARLY = replace(HARD, counting_shapes=None, beside_counted=(1, 2))
"""Difficulty of the bundled model's first lessons. The number of objects nearly gives the counted number away."""

DIFFICULTIES: dict[str, Difficulty] = {"standard": STANDARD, "hard": HARD, "early": EARLY}


@dataclass(frozen=True, order=True, slots=True)
class Shape:
    """One object, which fills the square of side ``side`` with top left corner ``(x, y)``, in original pixels."""

    colour: str
    form: str
    x: int
    y: int
    side: int

    @property
    def label(self) -> str:
        """Name of the object, such as ``red circle``."""
        return f"{self.colour} {self.form}"

    @property
    def box(self) -> Box:
        """Box of the object, xyxy in original pixels."""
        return (self.x, self.y, self.x + self.side, self.y + self.side)


@dataclass(frozen=True, slots=True)
class Scene:
    """A canvas with objects that neither touch nor overlap. All lengths are in original pixels."""

    size: Size
    background: Colour
    shapes: tuple[Shape, ...]


def pick(rng: Random, options: Sequence[T]) -> T:
    """Choose uniformly, with ``random()`` only: its values are the same in every version of Python."""
    return options[int(rng.random() * len(options))]


def between(rng: Random, low: int, high: int) -> int:
    """Draw a uniform integer from ``low`` to ``high``, both included."""
    return low + int(rng.random() * (high - low + 1))


def make_scene(rng: Random, names: Sequence[tuple[str, str]], difficulty: Difficulty = STANDARD) -> Scene:
    """Return a scene with one object per (colour, form) name; places, canvas size and background are random.

    If the objects do not fit on the canvas, another canvas size is drawn.
    """
    places: list[tuple[int, int, int]] = []
    while len(places) < len(names):
        size = pick(rng, CANVASES)
        places = _places(rng, size, len(names), difficulty.sides_px)
    shapes = tuple(Shape(*name, *place) for name, place in zip(names, places, strict=True))
    background = _marked(pick(rng, BACKGROUNDS), layout_split(size, shapes))
    return Scene(size, background, shapes)


def layout_split(size: Size, shapes: Sequence[Shape]) -> Split:
    """Return the split of a layout: a bit of its SHA-256 digest, independent of the order of the objects."""
    described = repr((size, [(s.colour, s.form, s.x, s.y, s.side) for s in sorted(shapes)]))
    return SPLITS[hashlib.sha256(described.encode()).digest()[0] & 1]


def image_split(image: Image.Image) -> Split:
    """Return the split of an RGB image of the shapes world, read from its top left pixel.

    Raises:
        ValueError: the image has another mode.
    """
    pixel = image.getpixel((0, 0))
    if not isinstance(pixel, tuple):
        raise ValueError(f"expected an RGB image, not mode {image.mode}")
    return SPLITS[int(pixel[2]) & 1]


def _marked(colour: Colour, split: Split) -> Colour:
    """Return the colour with the split encoded in the lowest bit of its blue value."""
    red, green, blue = colour
    return red, green, blue & ~1 | SPLITS.index(split)


def _places(rng: Random, size: Size, count: int, sides: Sequence[int]) -> list[tuple[int, int, int]]:
    """Draw ``(x, y, side)`` of objects that keep the margin; fewer than ``count`` if they do not all fit."""
    places: list[tuple[int, int, int]] = []
    for _ in range(20 * count):
        if len(places) == count:
            break
        side = pick(rng, sides)
        x, y = (between(rng, 1, (length - side - MARGIN_PX) // LATTICE_PX) * LATTICE_PX for length in size)
        if all(max(x - u - other, u - x - side, y - v - other, v - y - side) >= MARGIN_PX for u, v, other in places):
            places.append((x, y, side))
    return places
