"""Typed fields of one record of a GRIT data file: reads them, and describes each invalid one in a sentence."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.system.jsonl import is_finite
from grit_lightning.types import Box, Size

BOX_TOLERANCE_PX = 1.0
"""Distance in original pixels by which a box may exceed the image, because annotation tools round to the outer pixel.
Such a box is clipped to the image. A box that exceeds it further is an error: it belongs to another image or scale."""

LONGEST_SIDE_PX = 1_000_000
"""Longest side of an image in pixels; a larger number is a mistake, and its products would not be finite."""

_MARKUP = re.compile(r"</?(?:answer|think|rethink)>|\\boxed\b|<\|[^<>|]*\|>|</s>", re.IGNORECASE)
"""Marks that other trainers and chat templates put around an answer. No answer of a model would match them."""


class Fields:
    """Reads the typed fields of one JSON object.

    An invalid field is recorded in ``problems`` and replaced by a placeholder value, so that reading goes on and finds
    all problems of a line.
    """

    def __init__(self, record: dict[str, Any], source: str) -> None:
        self.record = record
        self.source = source
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

    def answer(self) -> str:
        """Return the answer as text: a number becomes its decimal text, and 3.0 becomes 3."""
        value = self._required("answer", "a non-empty string or a number")
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, int | float):
            text = self._checked_text("answer", value, "a non-empty string or a number")
            if found := _MARKUP.search(text):
                expected = f"the answer alone, without {found[0]}"
                return self._problem(f"field 'answer' is {_shown(text)}; expected {expected}")
            return text
        if isinstance(value, int):
            return str(value)
        if not math.isfinite(value):
            return self._problem(f"field 'answer' is {value}; expected a finite number")
        return format(Decimal(repr(value + 0.0)).normalize(), "f")  # + 0.0 turns -0.0 into 0.0

    def file_name(self, name: str) -> str:
        """Return the field as a path below the image folder."""
        value = self.text(name)
        inside = not (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute())
        if inside and ".." not in PureWindowsPath(value).parts and "\0" not in value:
            return value
        return self._problem(f"field '{name}' is {value!r}; expected a file name relative to the image folder")

    def positive_int(self, name: str) -> int:
        """Return the field as a positive integer up to ``LONGEST_SIDE_PX``, or 0 if it is invalid."""
        value = self._required(name, "a positive integer")
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LONGEST_SIDE_PX:
            self._problem(f"field '{name}' is {_shown(value)}; expected a positive integer (pixels)")
            return 0
        return value

    def boxes(self, name: str, size: Size) -> tuple[Box, ...]:
        """Return the field as xyxy boxes within the image, in original pixels; no boxes if it is absent or null."""
        value = self.record.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self._problem(f"field '{name}' is {kind_of(value)}; expected a list of [x1, y1, x2, y2] boxes")
            return ()
        boxes = []
        for index, item in enumerate(value):
            wrong = _box_problem(item, size)
            if wrong:
                self._problem(f"field '{name}[{index}]' is {_shown(item)}; {wrong}")
            else:
                boxes.append(_clamped(item, size))
        return tuple(boxes)

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
        if any("\ud800" <= character <= "\udfff" for character in value):  # cannot be tokenized or written to a log
            return self._problem(f"field '{name}' holds half of a surrogate pair (\\ud8xx); expected valid Unicode")
        return value

    def _problem(self, message: str) -> str:
        self.problems.append(DataError(message, self.source))
        return ""


def _box_problem(item: object, size: Size) -> str:
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
    x1, y1, x2, y2 = _clamped(item, size)
    if x1 >= x2 or y1 >= y2:
        return "expected x1 < x2 and y1 < y2"
    return ""


def _clamped(item: list[float], size: Size) -> Box:
    """Return the box clipped to the image, in original pixels."""
    width, height = size
    x1, y1, x2, y2 = (max(0.0, float(value)) for value in item)
    return min(x1, width), min(y1, height), min(x2, width), min(y2, height)


def kind_of(value: object) -> str:
    """Return the type of a JSON value in words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _shown(value: object) -> str:
    """Return a JSON value as text, shortened so that a message stays one readable line."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a deeply nested list"
    return text if len(text) <= 60 else f"{text[:57]}..."
