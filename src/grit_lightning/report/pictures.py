"""The images of a page: each embedded once, scaled down, and used wherever a completion is about it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grit_lightning.data.images import load_image
from grit_lightning.errors import DataError
from grit_lightning.report.drawing import jpeg, scaled
from grit_lightning.runs.record_rules import SIZE, TEXT, problem_of
from grit_lightning.runs.records import images_of
from grit_lightning.types import ImageFile, Size

_IMAGE = {"image": TEXT, "image_size": SIZE}
"""Validation rules for the fields that name a record's image."""

_LONGEST_SIDE = 640
"""Longest side of an embedded image in pixels."""

IMAGE_BYTES = 10_000_000
"""Bytes of embedded images on a page after which no further image is embedded, so that the page stays below 20 MB."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a page.

    Attributes:
        name: id of its SVG symbol.
        size: its size in original pixels, in which boxes are drawn.
        data: data URL of the scaled JPEG; empty if it cannot be read here.
        missing: why it cannot be read; empty if it can.
    """

    name: str
    size: Size
    data: str
    missing: str


class Pictures:
    """Collects the images that a page uses."""

    def __init__(self) -> None:
        self._used = 0
        self._found: dict[ImageFile, Picture] = {}

    def of(self, record: Mapping[str, Any]) -> list[Picture]:
        """Return the pictures of a record's images; none if it names no image, as predictions of others may."""
        return [] if problem_of(record, _IMAGE) else self.add(images_of(record))

    def add(self, images: Sequence[ImageFile]) -> list[Picture]:
        """Return the pictures of images, each embedded when it is asked for first."""
        for image in images:
            if image not in self._found:
                self._found[image] = self._picture(image)
        return [self._found[image] for image in images]

    def all(self) -> list[Picture]:
        """Return all pictures, in the order in which they were added."""
        return list(self._found.values())

    @property
    def left_out(self) -> int:
        """The number of images that were not embedded because of the limit."""
        return sum(picture.missing == _TOO_MANY for picture in self._found.values())

    def _picture(self, image: ImageFile) -> Picture:
        name = f"picture{len(self._found)}"
        if self._used >= IMAGE_BYTES:
            return Picture(name, image.size, "", _TOO_MANY)
        try:
            data = _data_url(image)
        except DataError as error:
            return Picture(name, image.size, "", str(error).removeprefix(f"{error.source}: "))
        self._used += len(data)
        return Picture(name, image.size, data, "")


_TOO_MANY = "left out, because the page has many images"


def _data_url(image: ImageFile) -> str:
    pixels = scaled(load_image(image, str(image.path)), _LONGEST_SIDE)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(pixels, quality=82)).decode()}"
