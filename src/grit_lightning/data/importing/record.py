"""A record of our JSONL made of a foreign sample, and the check that our own reader takes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grit_lightning.data.importing.pictures import Pictures
from grit_lightning.data.importing.sample import ForeignSample, LeftOutError
from grit_lightning.data.record_boxes import box_problem, clamped
from grit_lightning.data.record_fields import KNOWN
from grit_lightning.data.records import read_line
from grit_lightning.errors import DataError
from grit_lightning.system.jsonl import is_storable, shown
from grit_lightning.types import ImageFile

_NAMED = re.compile(r"field '([^']*)' ")


def record_line(sample: ForeignSample, pictures: Pictures, *, dataset: str, split: str) -> bytes:
    """Return the JSON line of a sample, without its end, and write its images.

    Args:
        sample: the sample.
        pictures: where its images come from and go to.
        dataset: name of the data set, if the sample gives none.
        split: name of the split.

    Raises:
        LeftOutError: an image or a field cannot be used.
    """
    images = [pictures.write(given, f"images[{index}]") for index, given in enumerate(sample.images)]
    boxes = [_box(sample, index, images) for index in range(len(sample.boxes))]
    record = {
        "question": sample.question,
        "answer": _filled(sample.answer, boxes),
        **_image_fields(images),
        "bboxs": boxes,
        "dataset": sample.dataset or dataset,
        "split": split,
        **({} if sample.completion is None else {"completion": _filled(sample.completion, boxes)}),
        **_extra(sample.extra),
    }
    line = json.dumps(record).encode()
    for item in read_line(line, 1, Path("imported"), pictures.target, {}):
        if isinstance(item, DataError):
            message = str(item).removeprefix("imported:1: ")
            found = _NAMED.match(message)
            raise LeftOutError(found[1] if found else "", message[found.end() :] if found else message)
    return line


def _image_fields(images: Sequence[ImageFile]) -> dict[str, Any]:
    each = [{"image": str(one.path), "width": one.size[0], "height": one.size[1]} for one in images]
    return each[0] if len(each) == 1 else {"images": each}


def _box(sample: ForeignSample, index: int, images: Sequence[ImageFile]) -> dict[str, Any]:
    foreign = sample.boxes[index]
    if foreign.image >= len(images):
        raise LeftOutError(foreign.field, f"belongs to image {foreign.image + 1}; expected 1 to {len(images)}")
    size = images[foreign.image].size
    pixels = foreign.in_pixels(size)
    if wrong := box_problem(pixels, size):
        raise LeftOutError(foreign.field, f"is {shown(list(foreign.numbers))}; {wrong}")
    box: dict[str, Any] = {"bbox_2d": [_short(number) for number in clamped(pixels, size)]}
    if foreign.label is not None:
        box["label"] = foreign.label
    if len(images) > 1:
        box["image"] = foreign.image + 1
    return box


def _short(number: float) -> float:
    rounded = round(number, 2)
    return int(rounded) if rounded.is_integer() else rounded


def _filled(text: str | float, boxes: Sequence[Mapping[str, Any]]) -> str | float:
    """Return a text with each ``{box:0}`` replaced by the JSON of that box, without its label, which the text has."""
    if not isinstance(text, str):
        return text
    for index, box in enumerate(boxes):
        written = {name: value for name, value in box.items() if name != "label"}
        text = text.replace(f"{{box:{index}}}", json.dumps(written))
    return text


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the further fields that JSON can hold; those that have the name of one of ours begin with ``source_``."""
    kept = {name: value for name, value in fields.items() if _is_json(value)}
    return {f"source_{name}" if name in KNOWN else name: value for name, value in kept.items()}


def _is_json(value: Any) -> bool:
    try:
        return is_storable(value)
    except TypeError:  # bytes, dates
        return False
