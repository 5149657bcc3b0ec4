"""Metrics of one completion: answer, boxes and form."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from grit_lightning import grounding
from grit_lightning.evaluation.predictions import EXACT_MATCH, JUDGE, Prediction
from grit_lightning.types import Box

COUNTING_DATASETS = frozenset({"tallyqa"})
"""Datasets whose questions ask for a number."""

MATCH_IOU = 0.5
"""From this IoU on a box counts as found, in precision and recall."""


UNMATCHED_GIOU = -1.0


def grounding_iou(one: Prediction) -> float | None:
    """Mean, over the reference boxes, of the best IoU with any predicted box. A box at nothing costs nothing here."""
    predicted, reference = _boxes(one)
    if not reference:
        return None
    return mean([max((grounding.iou(box, other) for box in predicted), default=0.0) for other in reference])


def matched_iou(one: Prediction) -> float | None:
    """Mean IoU of pairs, each box in one pair at most; boxes without a partner count 0."""
    return _matched(one, grounding.iou, unmatched=0.0)


def matched_giou(one: Prediction) -> float | None:
    """The same of the generalized IoU, −1 to 1; boxes without a partner count −1."""
    return _matched(one, grounding.giou, unmatched=UNMATCHED_GIOU)


def union_iou(one: Prediction) -> float | None:
    """IoU of what all predicted and what all reference boxes cover."""
    predicted, reference = _boxes(one)
    return grounding.union_iou(predicted, reference) if reference else None


def precision(one: Prediction) -> float | None:
    """Share of the predicted boxes that are paired at an IoU of at least 0.5; of a completion without boxes none."""
    predicted, reference = _boxes(one)
    return _hits(predicted, reference) / len(one["boxes"]) if reference and one["boxes"] else None


def recall(one: Prediction) -> float | None:
    """Share of the reference boxes that are paired at an IoU of at least 0.5."""
    predicted, reference = _boxes(one)
    return _hits(predicted, reference) / len(reference) if reference else None


def is_grounded(one: Prediction) -> bool:
    """Whether the completion has each tag once, in order, and points at something before it rethinks.

    Where a count is asked for and the completion's own answer is 0, there is nothing to point at.
    """
    return grounding.parse(one["text"]).well_formed and (bool(one["boxes"]) or _own_count(one) == 0)


def box_validity(one: Prediction) -> float | None:
    """Share of the boxes that are ordered, inside the image and not repeated; of a completion without boxes none."""
    return mean([box["valid"] for box in one["boxes"]])


def count_consistency(one: Prediction) -> float | None:
    """Whether there are as many boxes as the completion's own answer says, right or wrong; counting samples only.

    Without boxes, only the answer 0 is consistent.
    """
    count = _own_count(one)
    return None if count is None else float(len(one["boxes"]) == count)


def is_counting(one: Prediction) -> bool:
    """Whether the question asks for a number."""
    return one["dataset"] in COUNTING_DATASETS


def _own_count(one: Prediction) -> int | None:
    """The whole number that a counting sample was answered with."""
    return grounding.as_count(one["parsed_answer"]) if is_counting(one) else None


def _boxes(one: Prediction) -> tuple[list[Box], list[Box]]:
    """Predicted boxes whose coordinates are finite, and reference boxes, both in original pixels."""
    return [box["pixels"] for box in one["boxes"] if None not in box["pixels"]], one["reference_boxes"]


def _matched(one: Prediction, similarity: Callable[[Box, Box], float], *, unmatched: float) -> float | None:
    predicted, reference = _boxes(one)
    if not reference:
        return None
    return grounding.matched_similarity(predicted, reference, similarity=similarity, unmatched=unmatched)


def _hits(predicted: Sequence[Box], reference: Sequence[Box]) -> int:
    return sum(iou >= MATCH_IOU for iou in grounding.matched_pairs(predicted, reference, similarity=grounding.iou))


def judge_score(one: Prediction) -> float | None:
    """Return the judge's raw score, 0 to 1; ``None`` where it could not judge."""
    score: float | None = one["scores"].get(JUDGE)
    return score


def is_right(one: Prediction) -> bool | None:
    """Whether the judge's verdict is above 0, as in GRIT's training; ``None`` where it could not judge."""
    score = judge_score(one)
    return None if score is None else score > 0


COMPLETION_METRICS: Mapping[str, Callable[[Prediction], float | None]] = {
    "accuracy": judge_score,
    "accuracy_binarised": is_right,
    EXACT_MATCH: lambda one: one["scores"].get(EXACT_MATCH),
    "grounding_iou": grounding_iou,
    "matched_iou": matched_iou,
    "union_iou": union_iou,
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
    """Return the mean, or ``None`` of no values."""
    return sum(values) / len(values) if values else None
