"""Boxes of a completion about one or several images: the image that each belongs to, its validity and its pixels."""

from __future__ import annotations

from collections.abc import Sequence

from grit_lightning.grounding.boxes import rescale, valid_boxes
from grit_lightning.grounding.text_boxes import TextBox
from grit_lightning.types import Box, Size

_APART = 1e8
"""Distance in pixels between images on the canvas, far more than the side of an image."""


def image_of(found: TextBox, count: int) -> int | None:
    """Return the index of a box's image, from 0: the one that it names, or the first if it names none.

    Args:
        found: the box.
        count: number of images of the sample.

    Returns:
        The index; ``None`` if the box names an image that the sample does not have.
    """
    number = 1 if found.image is None else found.image
    return number - 1 if 1 <= number <= count else None


def valid_written(boxes: Sequence[TextBox], spaces: Sequence[Size]) -> tuple[bool, ...]:
    """Return one flag per box: True if it is ordered, inside its image, and no repetition of an earlier box of it.

    Args:
        boxes: boxes of a completion.
        spaces: ``Completion.box_spaces``.
    """
    images = [image_of(found, len(spaces)) for found in boxes]
    flags = [False] * len(boxes)
    for image, space in enumerate(spaces):
        own = [index for index, its in enumerate(images) if its == image]
        for index, flag in zip(own, valid_boxes([boxes[index].box for index in own], space), strict=True):
            flags[index] = flag
    return tuple(flags)


def in_pixels(found: TextBox, spaces: Sequence[Size], sizes: Sequence[Size]) -> Box | None:
    """Return a box in original pixels of its image; ``None`` if it names an image that the sample does not have.

    Args:
        found: a box of a completion.
        spaces: ``Completion.box_spaces``.
        sizes: ``Sample.sizes``.
    """
    image = image_of(found, len(sizes))
    return None if image is None else rescale(found.box, source=spaces[image], target=sizes[image])


def on_canvas(box: Box, image: int) -> Box:
    """Place a box on a canvas on which the images of a sample lie far apart, so that those of two images never overlap.

    Measures of sets of boxes thereby hold for several images as they are. Boxes of the first image keep their place.

    Args:
        box: xyxy in original pixels of its image.
        image: index of the image, from 0.
    """
    shift = image * _APART
    return box[0] + shift, box[1], box[2] + shift, box[3]
