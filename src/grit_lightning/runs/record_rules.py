"""Validation rules for the fields of stored rollouts and predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from grit_lightning.system.jsonl import is_finite, shown
from grit_lightning.types import FinishReason

Rule = tuple[str, Callable[[Any], bool]]
"""A description of the expected value, and a function that tells whether a value is valid."""

SHARES = ("judge", "exact_match")
"""Names of the scores of a prediction that are from 0 to 1; those of other measures may be any number."""

_WHOLE_LIMIT = 2**63
"""First whole number that is refused; larger ones are mistakes, and arithmetic with them would overflow."""

_LARGEST_SCORE = 1e100
"""Largest score; sums and squares of larger ones would not be finite."""


def problem_of(record: Mapping[str, Any], fields: Mapping[str, Rule]) -> str | None:
    """Describe the problem of the first missing or invalid field; return ``None`` if all fields are valid."""
    for name, (expected, admits) in fields.items():
        if name not in record:
            return f"field '{name}' is missing; expected {expected}"
        if not admits(record[name]):
            return f"field '{name}' is {shown(record[name])}; expected {expected}"
    return None


def image_problem(record: Mapping[str, Any]) -> str | None:
    """Describe the first mismatch of the valid fields about several images; return ``None`` if there is none."""
    images, boxes = 1 + len(record["more_images"]), len(record["reference_boxes"])
    for name in ("reference_images", "reference_labels"):
        if len(record.get(name) or ()) not in (0, boxes):  # none in records of earlier versions
            return f"field '{name}' has {len(record[name])} entries; expected {boxes}"
    if any(number > images for number in record["reference_images"]):
        return f"field 'reference_images' is {shown(record['reference_images'])}; expected numbers from 1 to {images}"
    if any((box.get("image") or 1) > images for box in record.get("boxes", ())):
        return f"field 'boxes' names an image that the sample lacks; expected numbers from 1 to {images}"
    return None


def space_problem(record: Mapping[str, Any]) -> str | None:
    """Describe a mismatch of the valid fields ``more_images`` and ``more_box_spaces``; ``None`` if there is none."""
    images, spaces = len(record["more_images"]), len(record["more_box_spaces"])
    return None if spaces == images else f"field 'more_box_spaces' has {spaces} entries; expected {images}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _WHOLE_LIMIT


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)


def _is_number_or_null(value: object) -> bool:
    return value is None or _is_number(value)


def _is_score(value: Any) -> bool:
    return value is None or (_is_number(value) and abs(value) <= _LARGEST_SCORE)


def _is_size(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_whole(side) and side > 0 for side in value)


def _are_boxes(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) for box in value
    )


def _are_written_boxes(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_written_box, value))


def _is_written_box(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("valid"), bool):
        return False
    pixels, image = value.get("pixels"), value.get("image", 1)  # records of earlier versions have one image
    if image is not None and not (_is_whole(image) and image):
        return False
    return isinstance(pixels, list) and len(pixels) == 4 and all(map(_is_number_or_null, pixels))


def _are_images(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and _is_text(one.get("image")) and _is_size(one.get("image_size")) for one in value
    )


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_size, value))


def _are_numbers_from_1(value: object) -> bool:
    return isinstance(value, list) and all(_is_whole(one) and one for one in value)


def _are_labels(value: object) -> bool:
    return isinstance(value, list) and all(one is None or _is_text(one) for one in value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_whole, value))


def _are_scores(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_score, value.values()))


def _are_prediction_scores(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _are_scores(value)
        and all(0 <= value[name] <= 1 for name in SHARES if value.get(name) is not None)
    )


def _are_errors(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


TEXT: Rule = ("text", _is_text)
WHOLE: Rule = ("a whole number", _is_whole)
SIZE: Rule = ("width and height in pixels", _is_size)
IMAGES: Rule = ("a list of objects, each with image and image_size", _are_images)
SIZES: Rule = ("a list of widths and heights in pixels", _are_sizes)
IMAGE_NUMBERS: Rule = ("a list of image numbers from 1", _are_numbers_from_1)
LABELS: Rule = ("a list of texts or null", _are_labels)
TEXTS: Rule = ("a list of texts", _are_texts)
OBJECT: Rule = ("an object", lambda value: isinstance(value, dict))
BOXES: Rule = ("a list of [x1, y1, x2, y2] boxes", _are_boxes)
WRITTEN_BOXES: Rule = ("a list of boxes, each with pixels and valid", _are_written_boxes)
TOKENS: Rule = ("a list of token ids", _are_tokens)
FINISH: Rule = (f"one of {', '.join(get_args(FinishReason))}", lambda value: value in get_args(FinishReason))
SCORE: Rule = (f"a number or null, at most {_LARGEST_SCORE:g}", _is_score)
SCORES: Rule = (
    f"an object with a number or null for each name, at most {_LARGEST_SCORE:g}, "
    f"and from 0 to 1 for {' and '.join(SHARES)}",
    _are_prediction_scores,
)
COMPONENTS: Rule = (f"an object with a number or null for each component, at most {_LARGEST_SCORE:g}", _are_scores)
ERRORS: Rule = ("an object with a sentence for each failed component", _are_errors)
