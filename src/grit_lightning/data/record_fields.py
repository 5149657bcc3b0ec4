"""Typed fields of one record of a GRIT data file: reads them, and describes each invalid one in a sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

from grit_lightning.data.record_boxes import box_problem, clamped
from grit_lightning.errors import DataError
from grit_lightning.grounding.options import MOST, chosen_option
from grit_lightning.system.jsonl import is_storable, kind_of, shown
from grit_lightning.types import IMAGE_MARK, ImageFile, Region, Size

LONGEST_SIDE_PX = 1_000_000
"""Longest side of an image in pixels; a larger number is a mistake, and its products would not be finite."""

KNOWN = frozenset(
    ("question", "answer", "image", "width", "height", "images", "bboxs", "options", "dataset", "split", "completion")
)

_MARKUP = re.compile(r"</?(?:answer|think|rethink)>|\\boxed\b|<\|[^<>|]*\|>|</s>", re.IGNORECASE)
"""Marks that other trainers and chat templates put around an answer. No answer of a model would match them."""


class Fields:
    """Reads the typed fields of one JSON object.

    An invalid field is recorded in ``problems`` and replaced by a placeholder value, so that reading goes on and finds
    all problems of a line.

    Args:
        record: the object.
        source: ``file:line`` of the record.
        prefix: what precedes the names of the fields in messages, for an object inside another.
    """

    def __init__(self, record: dict[str, Any], source: str, prefix: str = "") -> None:
        self.record = record
        self.source = source
        self.prefix = prefix
        self.problems: list[DataError] = []

    def text(self, name: str) -> str:
        """Return the field as text that is not blank."""
        value = self._required(name, "a non-empty string")
        return "" if value is None else self._checked_text(name, value)

    def optional_text(self, name: str, default: str) -> str:
        """Return the field as text, or the default if it is absent or null."""
        value = self.record.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            return self._problem(f"field '{name}' is {kind_of(value)}; expected a string") or default
        return value

    def question(self, num_images: int) -> str:
        """Return the question; its marks ``<image>``, if any, are as many as the images."""
        text = self.text("question")
        marks = text.count(IMAGE_MARK)
        if marks in (0, num_images) or not num_images:
            return text
        return self._problem(
            f"field 'question' has {marks} {IMAGE_MARK} mark{'s' if marks > 1 else ''}; expected one for each image, "
            f"{num_images}, or none"
        )

    def images(self, folder: Path) -> tuple[ImageFile, ...]:
        """Return the image of ``image``, ``width`` and ``height``, or those of ``images``; none if it is invalid."""
        value = self.record.get("images")
        if value is None:
            return (self._image(folder),)
        if self.record.get("image") is not None:
            self._problem("fields 'image' and 'images' are both given; expected one of them")
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            self._problem(
                f"field 'images' is {shown(value)}; expected a list of objects with the fields image, width and height"
            )
            return ()
        parts = [Fields(item, self.source, f"images[{index}].") for index, item in enumerate(value)]
        images = tuple(part._image(folder) for part in parts)
        self.problems += [problem for part in parts for problem in part.problems]
        return images

    def _image(self, folder: Path) -> ImageFile:
        size = (self.positive_int("width"), self.positive_int("height"))
        return ImageFile(folder / self.file_name("image"), size)

    def options(self) -> tuple[str, ...]:
        """Return the answers to choose from; none if the field is absent or null."""
        value = self.record.get("options")
        if value is None:
            return ()
        texts = [one.strip() for one in value if _is_text(one)] if isinstance(value, list) else []
        if not isinstance(value, list) or len(set(texts) - {""}) < len(value) or not 2 <= len(value) <= MOST:
            self._problem(f"field 'options' is {shown(value)}; expected a list of 2 to {MOST} different texts")
            return ()
        return tuple(texts)

    def extra(self) -> dict[str, Any]:
        """Return all further fields."""
        extra = {name: value for name, value in self.record.items() if name not in KNOWN}
        for name in [name for name, value in extra.items() if not is_storable(value)]:
            self._problem(f"field '{name}' is {shown(extra.pop(name))}; expected finite numbers in all further fields")
        return extra

    def answer(self, options: Sequence[str] = ()) -> str:
        """Return the answer as text; if there are options, the one that it names by text or letter."""
        text = self._answer()
        if not text or not options:
            return text
        chosen = chosen_option(text, options)
        return (
            chosen
            if chosen in options
            else self._problem(f"field 'answer' is {shown(text)}; expected one of the options or its letter")
        )

    def _answer(self) -> str:
        """Return the answer as text: a number becomes its decimal text, and 3.0 becomes 3."""
        value = self._required("answer", "a non-empty string or a number")
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, int | float):
            text = self._checked_text("answer", value, "a non-empty string or a number")
            if found := _MARKUP.search(text):
                expected = f"the answer alone, without {found[0]}"
                return self._problem(f"field 'answer' is {shown(text)}; expected {expected}")
            return text
        if isinstance(value, int):
            return str(value)
        if not math.isfinite(value):
            return self._problem(f"field 'answer' is {value}; expected a finite number")
        return format(Decimal(repr(value + 0.0)).normalize(), "f")  # + 0.0 turns -0.0 into 0.0

    def file_name(self, name: str) -> str:
        """Return the field as a path below the image folder."""
        value = self.text(name)
        if _is_inside(value):
            return value
        return self._problem(f"field '{name}' is {value!r}; expected a file name relative to the image folder")

    def positive_int(self, name: str) -> int:
        """Return the field as a positive integer up to ``LONGEST_SIDE_PX``, or 0 if it is invalid."""
        value = self._required(name, "a positive integer")
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LONGEST_SIDE_PX:
            self._problem(f"field '{name}' is {shown(value)}; expected a positive integer (pixels)")
            return 0
        return value

    def regions(self, name: str, sizes: Sequence[Size]) -> tuple[Region, ...]:
        """Return the field as boxes within their images, in original pixels; none if it is absent or null.

        Args:
            name: name of the field.
            sizes: ``(width, height)`` of each image.
        """
        value = self.record.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self._problem(f"field '{name}' is {kind_of(value)}; expected a list of [x1, y1, x2, y2] boxes")
            return ()
        found = (self._region(f"{name}[{index}]", item, sizes) for index, item in enumerate(value))
        return tuple(region for region in found if region is not None)

    def _region(self, name: str, item: object, sizes: Sequence[Size]) -> Region | None:
        box, label, number = item, None, 1
        if isinstance(item, dict):
            box, label, number = item.get("bbox_2d"), item.get("label"), item.get("image", 1)
            if label is not None and not self._checked_text(f"{name}.label", label):
                return None
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= max(1, len(sizes)):
                self._problem(f"field '{name}.image' is {shown(number)}; expected a number from 1 to {len(sizes)}")
                return None
            name = f"{name}.bbox_2d"
        size = sizes[number - 1] if sizes else (0, 0)
        if wrong := box_problem(box, size):
            self._problem(f"field '{name}' is {shown(box)}; {wrong}")
            return None
        return Region(clamped(cast("list[float]", box), size), number - 1, label)

    def _required(self, name: str, expected: str) -> Any:
        if self.record.get(name) is None:
            found = "is null" if name in self.record else "is missing"
            self._problem(f"field '{name}' {found}; expected {expected}")
            return None
        return self.record[name]

    def _checked_text(self, name: str, value: object, expected: str = "a non-empty string") -> str:
        if not isinstance(value, str):
            return self._problem(f"field '{name}' is {kind_of(value)}; expected {expected}")
        if not value.strip():
            return self._problem(f"field '{name}' is empty; expected {expected}")
        if not _is_text(value):
            return self._problem(f"field '{name}' holds half of a surrogate pair (\\ud8xx); expected valid Unicode")
        return value

    def _problem(self, message: str) -> str:
        if self.prefix:
            message = message.replace("field '", f"field '{self.prefix}", 1)
        self.problems.append(DataError(message, self.source))
        return ""


@lru_cache(maxsize=4096)
def _is_inside(name: str) -> bool:
    """Tell whether a name stays below the folder that it is relative to, on every system."""
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    return not outside and ".." not in PureWindowsPath(name).parts and "\0" not in name


def _is_text(value: object) -> bool:
    """Tell whether a value is text without half of a surrogate pair, which cannot be tokenized or written to a log."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
