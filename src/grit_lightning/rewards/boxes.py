"""Rewards of the boxes a completion writes: their presence, number, validity and place."""

from __future__ import annotations

from collections.abc import Collection

from grit_lightning.grounding.answers import as_count
from grit_lightning.grounding.boxes import giou, iou, matched_similarity, plain_boxes, rescale, valid_boxes
from grit_lightning.grounding.sections import before_rethink, parse
from grit_lightning.types import Box, Completion, Sample


def grounded_region(
    sample: Sample, completion: Completion, *, any_box: float, count_match: float, counting_datasets: Collection[str]
) -> float:
    """``any_box`` for a box before ``<rethink>``, ``count_match`` more for as many boxes as the answer counts.

    Without a ``<rethink>`` it is 0. The second part is for samples of ``counting_datasets`` alone, each judged by its
    own answer; an answer that is no count earns none. A box is whatever ``grounding.plain_boxes`` finds, which inverted
    or repeated boxes satisfy too: ``box_valid`` and ``box_iou`` are the strict rules.
    """
    head = before_rethink(completion.text)
    if head is None:
        return 0.0
    boxes = len(plain_boxes(head))
    counting = sample.dataset in counting_datasets
    return any_box * (boxes > 0) + count_match * (counting and boxes == as_count(sample.answer))


def box_valid(sample: Sample, completion: Completion) -> float:
    """Share of the boxes of any form that are ordered, inside the image and not repeated; 0 without a box."""
    flags = valid_boxes([found.box for found in parse(completion.text).boxes], completion.box_space)
    return sum(flags) / len(flags) if flags else 0.0


def box_iou(sample: Sample, completion: Completion) -> float | None:
    """Mean IoU with the reference boxes in original pixels, 0 to 1; unscored where there are none.

    Boxes are paired for the largest sum. One without a partner, missed or invented, counts 0.
    """
    if not sample.boxes:
        return None
    return matched_similarity(_in_pixels(sample, completion), sample.boxes, similarity=iou, unmatched=0.0)


def box_giou(sample: Sample, completion: Completion) -> float | None:
    """Mean generalized IoU (``grounding.giou``) with the reference boxes, −1 to 1, in original pixels.

    Boxes are paired for the largest sum. One without a partner, missed or invented, counts −1, which no pair is below.
    Unscored where there are no reference boxes.
    """
    if not sample.boxes:
        return None
    return matched_similarity(_in_pixels(sample, completion), sample.boxes, similarity=giou, unmatched=-1.0)


def _in_pixels(sample: Sample, completion: Completion) -> list[Box]:
    found = parse(completion.text).boxes
    return [rescale(f.box, source=completion.box_space, target=sample.size) for f in found]
