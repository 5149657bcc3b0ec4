"""Metrics of one completion: its answer, its boxes and its format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from grit_lightning import grounding
from grit_lightning.evaluation.predictions import EXACT_MATCH, JUDGE, Prediction
from grit_lightning.grounding.image_boxes import on_canvas
from grit_lightning.grounding.options import with_options
from grit_lightning.judge.option import OptionJudge
from grit_lightning.runs.records import placed_boxes, regions_of
from grit_lightning.types import Box

COUNTING_DATASETS = frozenset({"tallyqa"})
"""Datasets whose questions ask for a number."""

MATCH_IOU = 0.5
"""A box counts as found, in precision, recall and box accuracy, from this IoU on."""

UNMATCHED_GIOU = -1.0
"""GIoU of a box without a partner: the smallest value that a pair can have."""


def grounding_iou(one: Prediction) -> float | None:
    """Return the mean, over the reference boxes, of the best IoU with any predicted box.

    Predicted boxes that match nothing do not lower it. Return ``None`` without reference boxes.
    """
    predicted, reference = _boxes(one)
    if not reference:
        return None
    return mean([max((grounding.iou(box, other) for box in predicted), default=0.0) for other in reference])


def matched_iou(one: Prediction) -> float | None:
    """Return the mean IoU of a one-to-one matching with the reference boxes; ``None`` without reference boxes.

    Boxes without a partner count as 0.
    """
    return _matched(one, grounding.iou, unmatched=0.0)


def matched_giou(one: Prediction) -> float | None:
    """Return the mean generalized IoU, −1 to 1, of a one-to-one matching; ``None`` without reference boxes.

    Boxes without a partner count as −1.
    """
    return _matched(one, grounding.giou, unmatched=UNMATCHED_GIOU)


def union_iou(one: Prediction) -> float | None:
    """Return the IoU of the two regions that all predicted and all reference boxes cover.

    Return ``None`` without reference boxes.
    """
    predicted, reference = _boxes(one)
    return grounding.union_iou(predicted, reference) if reference else None


def paper_iou(one: Prediction) -> float | None:
    """Return the IoU of GRIT's evaluation script: of the areas that all written and all reference boxes cover.

    Written boxes are all runs of four whole numbers with commas in the text (``grounding.plain_boxes``): numbers that
    are no boxes count, and coordinates are taken as original pixels, though a model may write them in another space.
    Return ``None`` without reference boxes, and for samples of several images, which the script does not know. Source:
    arXiv 2505.15879, its published code.
    """
    reference = [region.box for region in regions_of(one)]
    if not reference or one.get("more_images"):
        return None
    return grounding.union_iou([box.box for box in grounding.plain_boxes(one["text"])], reference)


def first_box_iou(one: Prediction) -> float | None:
    """Return the IoU of the first written box with the reference box, 0 without a written box.

    This is the measure of referring expressions, which have one box: ``None`` for samples with another number.
    """
    predicted, reference = _boxes(one)
    if len(reference) != 1:
        return None
    return grounding.iou(predicted[0], reference[0]) if predicted else 0.0


def box_accuracy(one: Prediction) -> float | None:
    """Return 1 if :func:`first_box_iou` is at least 0.5, else 0; ``None`` where that is not defined."""
    value = first_box_iou(one)
    return None if value is None else float(value >= MATCH_IOU)


def mean_box_accuracy(one: Prediction) -> float | None:
    """Return the mean of :func:`box_accuracy` over the thresholds 0.5, 0.55, …, 0.95."""
    value = first_box_iou(one)
    # In hundredths, because 0.05 · k has rounding errors.
    return None if value is None else sum(value >= hundredths / 100 for hundredths in range(50, 100, 5)) / 10


def option_accuracy(one: Prediction) -> float | None:
    """Return 1 if the answer names the right option, 0 if it names another or none, with any judge.

    Return ``None`` without options, and for an answer that may mean several (``judge.OptionJudge``).
    """
    options = one.get("options")
    if not options:
        return None
    return OptionJudge()(with_options(one["question"], options), one["answer"], one["parsed_answer"])


def precision(one: Prediction) -> float | None:
    """Return the share of the predicted boxes that are paired with a reference box at an IoU of at least 0.5.

    Return ``None`` without reference boxes or without predicted boxes.
    """
    predicted, reference = _boxes(one)
    return _hits(predicted, reference) / len(one["boxes"]) if reference and one["boxes"] else None


def recall(one: Prediction) -> float | None:
    """Return the share of the reference boxes that are paired with a predicted box at an IoU of at least 0.5.

    Return ``None`` without reference boxes.
    """
    predicted, reference = _boxes(one)
    return _hits(predicted, reference) / len(reference) if reference else None


def is_grounded(one: Prediction) -> bool:
    """Tell whether the completion has each tag exactly once and in order, and a box in its reasoning.

    The reasoning is the text before ``<rethink>``. If a counting question is answered with 0, no box is needed.
    """
    return grounding.parse(one["text"]).well_formed and (bool(one["boxes"]) or _own_count(one) == 0)


def box_validity(one: Prediction) -> float | None:
    """Return the share of the boxes that are ordered, inside the image and not repeated; ``None`` without boxes."""
    return mean([box["valid"] for box in one["boxes"]])


def count_consistency(one: Prediction) -> float | None:
    """Return 1 if the number of boxes equals the completion's own answer, right or wrong, else 0.

    Return ``None`` if the question does not ask for a number, or the answer is not a whole number.
    """
    count = _own_count(one)
    return None if count is None else float(len(one["boxes"]) == count)


def is_counting(one: Prediction) -> bool:
    """Tell whether the question asks for a number."""
    return one["dataset"] in COUNTING_DATASETS


def _own_count(one: Prediction) -> int | None:
    """Return the answer as a whole number; ``None`` for another answer and for samples that ask for no number."""
    return grounding.as_count(one["parsed_answer"]) if is_counting(one) else None


def _boxes(one: Prediction) -> tuple[list[Box], list[Box]]:
    """Return the predicted boxes with finite coordinates and the reference boxes, on the canvas of all images."""
    written = [on_canvas(box, image) for _, box, image in placed_boxes(one)]
    return written, [on_canvas(region.box, region.image) for region in regions_of(one)]


def _matched(one: Prediction, similarity: Callable[[Box, Box], float], *, unmatched: float) -> float | None:
    predicted, reference = _boxes(one)
    if not reference:
        return None
    return grounding.matched_similarity(predicted, reference, similarity=similarity, unmatched=unmatched)


def _hits(predicted: Sequence[Box], reference: Sequence[Box]) -> int:
    return sum(iou >= MATCH_IOU for iou in grounding.matched_pairs(predicted, reference, similarity=grounding.iou))


def judge_score(one: Prediction) -> float | None:
    """Return the judge's raw score, 0 to 1; ``None`` if the judge could not score the answer."""
    score: float | None = one["scores"].get(JUDGE)
    return score


def is_right(one: Prediction) -> bool | None:
    """Tell whether the judge's score is above 0, as in GRIT's training; ``None`` if the judge could not score."""
    score = judge_score(one)
    return None if score is None else score > 0


COMPLETION_METRICS: Mapping[str, Callable[[Prediction], float | None]] = {
    "accuracy": judge_score,
    "accuracy_binarised": is_right,
    EXACT_MATCH: lambda one: one["scores"].get(EXACT_MATCH),
    "option_accuracy": option_accuracy,
    "accuracy_with_boxes": lambda one: judge_score(one) if one["boxes"] else None,
    "accuracy_without_boxes": lambda one: None if one["boxes"] else judge_score(one),
    "grounding_iou": grounding_iou,
    "matched_iou": matched_iou,
    "union_iou": union_iou,
    "paper_iou": paper_iou,
    "box_accuracy": box_accuracy,
    "box_accuracy_mean": mean_box_accuracy,
    "giou": matched_giou,
    "precision": precision,
    "recall": recall,
    "grounded_format": is_grounded,
    "box_validity": box_validity,
    "count_consistency": count_consistency,
    "tokens": lambda one: one["num_tokens"],
    "truncated": lambda one: one["finish"] == "length",
}


def mean(values: Collection[float]) -> float | None:
    """Return the mean of the values; ``None`` if there are none."""
    return sum(values) / len(values) if values else None
