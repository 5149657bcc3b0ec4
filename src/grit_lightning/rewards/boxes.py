"""Rewards for the boxes of a completion: their presence, number, validity and position."""

from __future__ import annotations

from collections.abc import Collection

from grit_lightning.grounding.answers import as_count
from grit_lightning.grounding.boxes import giou, iou, matched_similarity, rescale, valid_boxes
from grit_lightning.grounding.sections import before_rethink, parse
from grit_lightning.grounding.text_boxes import plain_boxes
from grit_lightning.types import Box, Completion, Sample


def grounded_region(
    sample: Sample, completion: Completion, *, any_box: float, count_match: float, counting_datasets: Collection[str]
) -> float:
    """Return ``any_box`` for any box before ``<rethink>``, plus ``count_match`` for the right number of boxes.

    The right number is the reference answer of the sample. ``count_match`` is given only for samples of
    ``counting_datasets`` whose reference answer is a count. A completion without ``<rethink>`` scores 0. Boxes are
    found by ``grounding.plain_boxes``, which also accepts inverted and repeated boxes; ``box_valid`` and ``box_iou``
    are stricter.
    """
    reasoning = before_rethink(completion.text)
    if reasoning is None:
        return 0.0
    boxes = len(plain_boxes(reasoning))
    counting = sample.dataset in counting_datasets
    return any_box * (boxes > 0) + count_match * (counting and boxes == as_count(sample.answer))


def box_valid(sample: Sample, completion: Completion) -> float:
    """Return the share of boxes, of any form, that are ordered, inside the image and not repeated; 0 without boxes."""
    flags = valid_boxes([found.box for found in parse(completion.text).boxes], completion.box_space)
    return sum(flags) / len(flags) if flags else 0.0


def box_iou(sample: Sample, completion: Completion) -> float | None:
    """Return the mean IoU with the reference boxes, 0 to 1, in original pixels.

    Predicted and reference boxes are matched one to one so that the total IoU is largest. A box without a partner,
    predicted or reference, counts as 0. A sample without reference boxes is unscored (``None``).
    """
    if not sample.boxes:
        return None
    return matched_similarity(_in_pixels(sample, completion), sample.boxes, similarity=iou, unmatched=0.0)


def box_giou(sample: Sample, completion: Completion) -> float | None:
    """Return the mean generalized IoU (``grounding.giou``) with the reference boxes, −1 to 1, in original pixels.

    Predicted and reference boxes are matched one to one so that the total GIoU is largest. A box without a partner,
    predicted or reference, counts as −1, the smallest possible GIoU. A sample without reference boxes is unscored
    (``None``).
    """
    if not sample.boxes:
        return None
    return matched_similarity(_in_pixels(sample, completion), sample.boxes, similarity=giou, unmatched=-1.0)


def _in_pixels(sample: Sample, completion: Completion) -> list[Box]:
    found = parse(completion.text).boxes
    return [rescale(f.box, source=completion.box_space, target=sample.size) for f in found]
