"""Rewards for the boxes of a completion: their presence, number, validity and position."""

from __future__ import annotations

from collections.abc import Collection

from grit_lightning.grounding.answers import as_count
from grit_lightning.grounding.boxes import giou, iou, matched_similarity
from grit_lightning.grounding.image_boxes import image_of, in_pixels, on_canvas, valid_written
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
    """Return the share of boxes of any form that are ordered, inside their image and not repeated; 0 without boxes."""
    flags = valid_written(parse(completion.text).boxes, completion.box_spaces)
    return sum(flags) / len(flags) if flags else 0.0


def box_iou(sample: Sample, completion: Completion) -> float | None:
    """Return the mean IoU with the reference boxes, 0 to 1, in original pixels.

    Predicted and reference boxes of the same image are matched one to one so that the total IoU is largest. A box
    without a partner, predicted or reference, counts as 0. A sample without reference boxes is unscored (``None``).
    """
    if not sample.regions:
        return None
    return matched_similarity(_predicted(sample, completion), _reference(sample), similarity=iou, unmatched=0.0)


def box_giou(sample: Sample, completion: Completion) -> float | None:
    """Return the mean generalized IoU (``grounding.giou``) with the reference boxes, −1 to 1, in original pixels.

    Predicted and reference boxes are matched one to one so that the total GIoU is largest. A box without a partner,
    predicted or reference, counts as −1, the smallest possible GIoU. A sample without reference boxes is unscored
    (``None``).
    """
    if not sample.regions:
        return None
    return matched_similarity(_predicted(sample, completion), _reference(sample), similarity=giou, unmatched=-1.0)


def _reference(sample: Sample) -> list[Box]:
    return [on_canvas(region.box, region.image) for region in sample.regions]


def _predicted(sample: Sample, completion: Completion) -> list[Box]:
    """Return all boxes on the canvas; one of an image that is not there lies where no reference box does."""
    placed = []
    for found in parse(completion.text).boxes:
        pixels = in_pixels(found, completion.box_spaces, sample.sizes)
        image = image_of(found, len(sample.images))
        nowhere = len(sample.images)
        placed.append(on_canvas(pixels or found.box, nowhere if image is None else image))
    return placed
