"""Grounding: parsing of tags, boxes and answers in completions, and box geometry. Independent of any model."""

from grit_lightning.grounding.answers import as_count, normalise
from grit_lightning.grounding.boxes import (
    area,
    giou,
    iou,
    matched_pairs,
    matched_similarity,
    rescale,
    union_iou,
    valid_boxes,
)
from grit_lightning.grounding.sections import TAGS, Grounded, answer_text, before_rethink, parse, section
from grit_lightning.grounding.text_boxes import TextBox, find_boxes, plain_boxes

__all__ = [
    "TAGS",
    "Grounded",
    "TextBox",
    "answer_text",
    "area",
    "as_count",
    "before_rethink",
    "find_boxes",
    "giou",
    "iou",
    "matched_pairs",
    "matched_similarity",
    "normalise",
    "parse",
    "plain_boxes",
    "rescale",
    "section",
    "union_iou",
    "valid_boxes",
]
