"""Metrics of predictions: first what each sample is worth, then means over samples.

The sample is the unit of every mean and of every interval: several completions of one are averaged first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from grit_lightning import grounding
from grit_lightning.evaluation.predictions import EXACT_MATCH, JUDGE, Prediction
from grit_lightning.types import Box

Metrics = dict[str, float | None]
"""Metrics by name; ``None`` where no sample is of the kind that a metric is about."""

COUNTING_DATASETS = frozenset({"tallyqa"})
"""Datasets whose questions ask for a number."""

OVERALL, MACRO = "overall", "macro"
"""What metrics over all samples, and means over datasets, are called among those of the datasets."""

MATCH_IOU = 0.5
"""From this IoU on a box counts as found, in precision and recall."""

UNMATCHED_GIOU = -1.0

COUNTS = ("samples", "unscored")


# ---- one prediction ----


def grounding_iou(one: Prediction) -> float | None:
    """Mean, over the reference boxes, of the best IoU with any predicted box. A box at nothing costs nothing here."""
    predicted, reference = _boxes(one)
    if not reference:
        return None
    return _mean([max((grounding.iou(box, other) for box in predicted), default=0.0) for other in reference])


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
    return _mean([box["valid"] for box in one["boxes"]])


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


def _judged(one: Prediction) -> float | None:
    score: float | None = one["scores"].get(JUDGE)
    return score


def is_right(one: Prediction) -> bool | None:
    """Whether the judge's verdict is above 0, as in GRIT's training; ``None`` where it could not judge."""
    score = _judged(one)
    return None if score is None else score > 0


_OF_COMPLETION: Mapping[str, Callable[[Prediction], float | None]] = {
    "accuracy": _judged,
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


# ---- several completions of one sample ----


def pass_at_k(group: Sequence[Prediction]) -> float | None:
    """Whether any of the completions is right, over those that were judged."""
    verdicts = [right for one in group if (right := is_right(one)) is not None]
    return float(any(verdicts)) if verdicts else None


def majority_vote(group: Sequence[Prediction]) -> float | None:
    """The judge's score of the most frequent answer; of equally frequent ones, that which was given first."""
    answers = [grounding.normalise(one["parsed_answer"]) for one in group]
    winner = Counter(answers).most_common(1)[0][0]  # in the order of first occurrence
    voted = [_judged(one) for one, answer in zip(group, answers, strict=True) if answer == winner]
    return next((score for score in voted if score is not None), None)


def answer_entropy(group: Sequence[Prediction]) -> float:
    """Shannon entropy of the answers, in nats: 0 where all agree, log k where none do."""
    answers = Counter(grounding.normalise(one["parsed_answer"]) for one in group)
    return float(stats.entropy(list(answers.values())))


_OF_GROUP: Mapping[str, Callable[[Sequence[Prediction]], float | None]] = {
    "pass_at_k": pass_at_k,
    "majority_vote": majority_vote,
    "answer_entropy": answer_entropy,
}


# ---- samples ----


@dataclass(frozen=True, slots=True)
class SampleValues:
    """What a sample is worth.

    Attributes:
        sample_id: of the sample.
        dataset: that it belongs to.
        values: by metric; ``None`` where a metric is not about this sample.
        unscored: completions that the judge could not score.
    """

    sample_id: str
    dataset: str
    values: Metrics
    unscored: int


def sample_values(predictions: Iterable[Prediction]) -> list[SampleValues]:
    """The values of each sample, in the order of their first predictions."""
    groups: dict[str, list[Prediction]] = {}
    for one in predictions:
        groups.setdefault(one["sample_id"], []).append(one)
    several = any(len(group) > 1 for group in groups.values())
    return [_sample_values(group, several=several) for group in groups.values()]


def _sample_values(group: Sequence[Prediction], *, several: bool) -> SampleValues:
    more = [name for name in group[0]["scores"] if name not in (JUDGE, EXACT_MATCH)]
    values = {name: _mean_of_known(map(measure, group)) for name, measure in _OF_COMPLETION.items()}
    values |= {name: _mean_of_known(one["scores"].get(name) for one in group) for name in more}
    if several:
        values |= {name: measure(group) for name, measure in _OF_GROUP.items()}
    unscored = sum(_judged(one) is None for one in group)
    return SampleValues(group[0]["sample_id"], group[0]["dataset"], values, unscored)


def names_of(samples: Sequence[SampleValues]) -> list[str]:
    """The metrics that any of the samples has, in their order."""
    return list(dict.fromkeys(name for sample in samples for name in sample.values))


def metric_names(measures: Iterable[str], *, several: bool) -> list[str]:
    """The metrics that :func:`summary` will have.

    Args:
        measures: further scores of the predictions.
        several: whether there are several completions of a sample.
    """
    return [*_OF_COMPLETION, *measures, *(_OF_GROUP if several else ()), *COUNTS]


def datasets_of(samples: Sequence[SampleValues]) -> dict[str, list[SampleValues]]:
    """The samples of each dataset, by name."""
    names = sorted({sample.dataset for sample in samples})
    return {name: [sample for sample in samples if sample.dataset == name] for name in names}


def known(samples: Sequence[SampleValues], name: str) -> list[float]:
    """A metric's values where it has any."""
    return [value for sample in samples if (value := sample.values.get(name)) is not None]


# ---- all ----


def summary(predictions: Iterable[Prediction]) -> dict[str, Metrics]:
    """Means over all samples, under ``OVERALL``, by dataset, and of several datasets their unweighted mean, ``MACRO``.

    - ``accuracy``: the judge's raw score. ``accuracy_binarised``: share above 0. ``exact_match``: share of answers
      that are the reference's after ``grounding.normalise``, whoever judges.
    - ``grounding_iou``, ``matched_iou``, ``union_iou``, ``giou``, ``precision``, ``recall``: the functions above of
      these names (``giou``: :func:`matched_giou`), over samples with reference boxes, in original pixels.
    - ``grounded_format``: :func:`is_grounded`. ``box_validity``, ``count_consistency``: see there.
    - ``tokens``: tokens of a completion. ``truncated``: share cut off by the limit.
    - any further score, by its name.
    - with several completions of a sample: ``pass_at_k``, ``majority_vote``, ``answer_entropy``.
    - ``samples``: how many. ``unscored``: completions that the judge could not score.
    """
    samples = sample_values(predictions)
    by_dataset = {name: _metrics(those) for name, those in datasets_of(samples).items()}
    overall = _metrics(samples)
    result = {OVERALL: overall, **by_dataset}
    if len(by_dataset) > 1:
        macro = {name: _mean_of_known(column.get(name) for column in by_dataset.values()) for name in names_of(samples)}
        result[MACRO] = macro | {name: overall[name] for name in COUNTS}
    return result


def _metrics(samples: Sequence[SampleValues]) -> Metrics:
    means: Metrics = {name: _mean(known(samples, name)) for name in names_of(samples) or _OF_COMPLETION}
    return means | {"samples": len(samples), "unscored": sum(sample.unscored for sample in samples)}


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    return _mean([value for value in values if value is not None])


def _mean(values: Collection[float]) -> float | None:
    return sum(values) / len(values) if values else None
