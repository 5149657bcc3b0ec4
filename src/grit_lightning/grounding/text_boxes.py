"""Reader of the boxes in a text, in every form that the model families write.

A number is read whole or not at all: with its sign, decimals and exponent, and never as a part of another number, a
word, a price or a percentage. Numbers are a box only if exactly four stand in a row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from grit_lightning.types import Box

Span = tuple[int, int]
"""Offsets in a text: of the first character, and after the last one."""

# The pattern of GRIT's published code. It backtracks over one run of digits or spaces at a time, so it stays linear.
_PLAIN = re.compile(r"\b(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\b")

# Possessive quantifiers keep all patterns linear. A token is a number with all that is attached to it: 4th, $5, 3.5%.
_TOKEN = r"(?:[\w.+\-−–%‰°$€£¥#/]|(?<=[0-9])[:'’\u00a0\u202f](?=[0-9]))++"
_COMMA = r"\s*+,\s*+"
_PAIR = rf"[(\[]\s*+({_TOKEN}){_COMMA}({_TOKEN})\s*+[)\]]"
_TOKENS, _GAP, _CORNER = re.compile(_TOKEN), re.compile(_COMMA), re.compile(_PAIR)
_CORNERS = re.compile(rf"{_PAIR}(?:{_COMMA}{_PAIR})*+")
_NUMBER = re.compile(r"[-+−]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NUMBER_LIKE = re.compile(r"[-+−]?(?:nan|inf|infinity|true|false|null|none)|.*[0-9].*", re.IGNORECASE | re.DOTALL)

# An object without nested objects. A box in another object has no label, but matching takes linear time.
_OBJECT = re.compile(r"\{[^{}]*\}")
_LIST = re.compile(r"""(["'])bbox_2d\1\s*+:\s*+(\[(?:[^\[\]]++|\[[^\[\]]*+\])*+\])""")
_LABEL = re.compile(r"""(["'])label\1\s*+:\s*+("(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+')""", re.DOTALL)
_IMAGE = re.compile(r"""(["'])image\1\s*+:\s*+([0-9]{1,9})(?![0-9.eE])""")
# The box tags of InternVL (which GRIT's published code uses to prompt it) and of Qwen-VL, after the name of the object.
_TAGGED = re.compile(
    r"(?:<ref>([^<>]*)</ref>\s*+)?<box>([^<>]*)</box>"
    r"|(?:<\|object_ref_start\|>([^<>]*)<\|object_ref_end\|>\s*+)?<\|box_start\|>([^<>]*)<\|box_end\|>"
)
_PLACE = re.compile(
    r"""(?:<box>|<\|box_start\|>)(?P<tagged>[^<]*+)"""
    r"""|(["'])bbox_2d\2\s*+:\s*+(?P<listed>\[(?:[^\[\]]++|\[[^\[\]]*+\])*+\]|[^,{}\[\]]*+)"""
)


@dataclass(frozen=True, slots=True)
class TextBox:
    """A box as written in a text.

    Attributes:
        box: xyxy as written, in the pixels of ``Completion.box_spaces`` if the text is one; it may be unordered
            or outside the image.
        label: the label that the text gives to the box; ``None`` if it gives none.
        image: number of the image, from 1, that a JSON object gives as ``"image"``; ``None`` if it gives none.
        form: notation of the box: ``json`` for ``{"bbox_2d": [x1, y1, x2, y2], "label": …}``, in either quotes and also
            with a list of boxes; ``ref`` for InternVL's ``<ref>label</ref><box>[[x1, y1, x2, y2]]</box>`` and Qwen-VL's
            ``<|box_start|>(x1, y1), (x2, y2)<|box_end|>``; ``plain`` for bare numbers, ``x1, y1, x2, y2`` or
            ``(x1, y1), (x2, y2)``.
        start: offset in the text of the JSON object, or of the first digit of a ``ref`` or ``plain`` box. Of several
            boxes in one object, only the first starts with it.
        end: offset just after the JSON object, or after the last digit of a ``ref`` or ``plain`` box. Of several
            boxes in one object, only the last ends with it.
        numbers: offsets of the four numbers.
    """

    box: Box
    label: str | None
    form: Literal["json", "ref", "plain"]
    start: int
    end: int
    numbers: tuple[Span, ...]
    image: int | None = None


def plain_boxes(text: str) -> tuple[TextBox, ...]:
    r"""Return all matches of ``\b\d+,\s*\d+,\s*\d+,\s*\d+\b``, the pattern of GRIT's code (``grounded_region``)."""
    return tuple(_text_box(text, [m.span(i) for i in (1, 2, 3, 4)], None, "plain") for m in _PLAIN.finditer(text))


def find_boxes(text: str) -> tuple[TextBox, ...]:
    """Return all boxes of any form in the order written, each box once.

    A JSON object whose ``bbox_2d`` is a list but no box, nor a list of boxes, has none.
    """
    found: list[TextBox] = []
    for pattern, read in ((_TAGGED, _tagged_boxes), (_OBJECT, _json_boxes)):
        rest = []
        done = 0
        for match in pattern.finditer(text):
            boxes = read(match)
            if boxes is not None:
                found += boxes
                # Overwrite the match with NULs to keep offsets valid. Spaces could join the text around it into a box.
                rest += [text[done : match.start()], "\0" * (match.end() - match.start())]
                done = match.end()
        text = "".join([*rest, text[done:]])
    found += [_text_box(text, numbers, None, "plain") for numbers in _fours(text, 0, len(text))]
    return tuple(sorted(found, key=lambda box: box.start))


def native_places(text: str) -> list[Span]:
    """Return the offsets of all places in which a family's native form holds numbers, whether these are boxes or not.

    Native forms are box tags and the value of ``bbox_2d``.
    """
    return [match.span(match.lastgroup or 0) for match in _PLACE.finditer(text)]


def _text_box(text: str, numbers: list[Span], label: str | None, form: Literal["json", "ref", "plain"]) -> TextBox:
    # float, not int: int() raises on more than 4300 digits, while float() returns infinity.
    x1, y1, x2, y2 = (float(text[start:end].replace("−", "-")) for start, end in numbers)
    return TextBox((x1, y1, x2, y2), label, form, numbers[0][0], numbers[3][1], tuple(numbers))


def _tagged_boxes(match: re.Match[str]) -> list[TextBox] | None:
    label, content = (1, 2) if match[2] is not None else (3, 4)
    name = None if match[label] is None else match[label].strip()
    boxes = [_text_box(match.string, numbers, name, "ref") for numbers in _fours(match.string, *match.span(content))]
    return boxes or None


def _json_boxes(match: re.Match[str]) -> list[TextBox] | None:
    """Return the boxes of an object, none if a list that it gives is no box; ``None`` if it gives no list."""
    text, (start, end) = match.string, match.span()
    lists = [one.span(2) for one in _LIST.finditer(text, start, end)]
    if not lists:
        return None
    label, image = _label(text, start, end), _IMAGE.search(text, start, end)
    boxes = []
    for place in lists:
        read = [_text_box(text, numbers, label, "json") for numbers in sorted(_fours(text, *place))]
        if not is_all_boxes(text, place, read) or not all(math.isfinite(x) for one in read for x in one.box):
            return []
        boxes += read
    ends = [*(one.end for one in boxes[:-1]), end]
    starts = [start, *(one.start for one in boxes[1:])]
    return [
        TextBox(one.box, label, "json", begin, stop, one.numbers, None if image is None else int(image[2]))
        for one, begin, stop in zip(boxes, starts, ends, strict=True)
    ]


def is_all_boxes(text: str, place: Span, boxes: Sequence[TextBox]) -> bool:
    """Tell whether a place in a text holds boxes and nothing else but brackets, commas and spaces."""
    start, end = place
    inside = sorted(span for box in boxes for span in box.numbers if start <= span[0] and span[1] <= end)
    rest = []
    for begin, stop in inside:
        rest.append(text[start:begin])
        start = stop
    return bool(inside) and not "".join([*rest, text[start:end]]).strip("[](), \t\r\n")


def _label(text: str, start: int, end: int) -> str | None:
    match = _LABEL.search(text, start, end)
    if match is None:
        return None
    literal = match[2]
    if literal[0] == "'":  # as Python writes it: the same in double quotes
        literal = '"' + literal[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
    try:
        return str(json.loads(literal, strict=False))
    except ValueError:  # an escape that JSON lacks
        return literal[1:-1]


def _fours(text: str, start: int, end: int) -> Iterator[list[Span]]:
    """Yield the offsets of four numbers in a row, flat or as two corners, for each box in a part of a text."""
    for match in _CORNERS.finditer(text, start, end):
        corners = [one.span(i) for one in _CORNER.finditer(text, *match.span()) for i in (1, 2)]
        if len(corners) == 4 and (numbers := _numbers(text, corners)):
            yield numbers
    row: list[Span] = []
    for match in _TOKENS.finditer(text, start, end):
        if row and not (_NUMBER_LIKE.fullmatch(match[0]) and _GAP.fullmatch(text, row[-1][1], match.start())):
            if len(row) == 4 and (numbers := _numbers(text, row)):
                yield numbers
            row = []
        if _NUMBER_LIKE.fullmatch(match[0]):
            row.append(match.span())
    if len(row) == 4 and (numbers := _numbers(text, row)):
        yield numbers


def _numbers(text: str, tokens: list[Span]) -> list[Span]:
    """Return the offsets of the numbers without a full stop after them; an empty list if a token is not a number."""
    numbers = [(start, start + len(text[start:end].rstrip("."))) for start, end in tokens]
    return numbers if all(_NUMBER.fullmatch(text, *span) for span in numbers) else []
