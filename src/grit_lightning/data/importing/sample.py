"""A row of another project as a reader understands it: question, answer, images and boxes, not yet looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grit_lightning.system.jsonl import shown
from grit_lightning.types import IMAGE_MARK, Size

BoxForm = Literal["pixels", "xywh", "share", "thousandths"]
"""A way to write boxes: xyxy in original pixels; x, y, width, height in original pixels; xyxy as shares of the
sides, 0 to 1; or xyxy in thousandths of the sides."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class LeftOutError(Exception):
    """Raised for a row that cannot be imported.

    Args:
        field: the field that is to blame, such as ``objects.bbox[1]``.
        reason: what it is, and what was expected.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"field '{field}' {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ForeignBox:
    """A box as its format writes it.

    Attributes:
        field: where it stands in the row, for messages.
        numbers: its four numbers.
        form: what they mean.
        label: name of what it shows; ``None`` if the row gives none.
        image: index of its image, from 0.
    """

    field: str
    numbers: Sequence[float]
    form: BoxForm
    label: str | None = None
    image: int = 0

    def in_pixels(self, size: Size) -> list[float]:
        """Return xyxy in original pixels of an image of this size.

        Raises:
            LeftOutError: there are not four numbers, or they exceed what the form allows.
        """
        if len(self.numbers) != 4 or any(isinstance(x, bool) or not isinstance(x, int | float) for x in self.numbers):
            raise LeftOutError(self.field, f"is {shown(list(self.numbers))}; expected four numbers")
        a, b, c, d = (float(number) for number in self.numbers)
        if self.form == "pixels":
            return [a, b, c, d]
        if self.form == "xywh":
            return [a, b, a + c, b + d]
        full = 1.0 if self.form == "share" else 1000.0
        if not all(0 <= number <= full for number in (a, b, c, d)):
            raise LeftOutError(self.field, f"is {shown(list(self.numbers))}; expected numbers from 0 to {full:g}")
        return [a * size[0] / full, b * size[1] / full, c * size[0] / full, d * size[1] / full]


@dataclass(frozen=True, slots=True)
class ForeignSample:
    """A row of another project.

    Attributes:
        question: the question, with ``<image>`` marks where the row has them.
        answer: the reference answer.
        images: what the row says of each image: bytes, a path, or an object with ``bytes`` and ``path``.
        boxes: reference boxes.
        dataset: name of the data set; ``None`` for that of the file.
        completion: target of supervised fine-tuning, in which ``{box:0}`` stands for the first box; ``None`` for none.
        extra: all other fields.
    """

    question: str
    answer: str | float
    images: Sequence[Any]
    boxes: Sequence[ForeignBox] = ()
    dataset: str | None = None
    completion: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def text_of(row: Mapping[str, Any], name: str) -> str:
    """Return a field as text that is not blank; raise LeftOutError otherwise."""
    value = row.get(name)
    if isinstance(value, str) and value.strip():
        return value
    raise LeftOutError(name, f"{_found(row, name)}; expected a text")


def list_of(row: Mapping[str, Any], name: str) -> list[Any]:
    """Return a field as a list that is not empty; raise LeftOutError otherwise."""
    value = row.get(name)
    if isinstance(value, list) and value:
        return value
    raise LeftOutError(name, f"{_found(row, name)}; expected a list with at least one entry")


def object_of(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a field as an object; raise LeftOutError otherwise."""
    value = row.get(name)
    if isinstance(value, dict):
        return value
    raise LeftOutError(name, f"{_found(row, name)}; expected an object")


def answer_of(row: Mapping[str, Any], name: str) -> str | float:
    """Return a field as an answer, a text or a number; raise LeftOutError otherwise."""
    value = row.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip():
        return unwrapped(value)
    raise LeftOutError(name, f"{_found(row, name)}; expected a text or a number")


def unwrapped(answer: str) -> str:
    """Return what stands between ``<answer>`` and ``</answer>``, or the text as it is if it has no such tags."""
    found = _ANSWER.findall(answer)
    return found[-1].strip() if found else answer.strip()


def without_leading_mark(question: str, num_images: int) -> str:
    """Return the question without the mark of a single image that stands before it, where it would stand anyway."""
    stripped = question.strip()
    if num_images == 1 and stripped.startswith(IMAGE_MARK) and stripped.count(IMAGE_MARK) == 1:
        return stripped.removeprefix(IMAGE_MARK).lstrip()
    return stripped


def others(row: Mapping[str, Any], *read: str) -> dict[str, Any]:
    """Return the fields that a reader did not read."""
    return {name: value for name, value in row.items() if name not in read and value is not None}


def _found(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return "is missing"
    value = row[name]
    return f"is {shown(value)}" if not isinstance(value, bytes) else "is binary"
