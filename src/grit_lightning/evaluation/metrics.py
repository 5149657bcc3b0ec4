"""Metrics of predictions: first what each sample is worth, then means over samples.

The sample is the unit of every mean and of every interval: several completions of one are averaged first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from grit_lightning import grounding
from grit_lightning.evaluation.completion_metrics import (
    COMPLETION_METRICS,
    is_right,
    judge_score,
    mean,
)
from grit_lightning.evaluation.predictions import EXACT_MATCH, JUDGE, Prediction

Metrics = dict[str, float | None]
"""Metrics by name; ``None`` where no sample is of the kind that a metric is about."""


OVERALL, MACRO = "overall", "macro"
"""What metrics over all samples, and means over datasets, are called among those of the datasets."""


COUNTS = ("samples", "unscored")


# ---- several completions of one sample ----


def pass_at_k(group: Sequence[Prediction]) -> float | None:
    """Whether any of the completions is right, over those that were judged."""
    verdicts = [right for one in group if (right := is_right(one)) is not None]
    return float(any(verdicts)) if verdicts else None


def majority_vote(group: Sequence[Prediction]) -> float | None:
    """The judge's score of the most frequent answer; of equally frequent ones, that which was given first."""
    answers = [grounding.normalise(one["parsed_answer"]) for one in group]
    winner = Counter(answers).most_common(1)[0][0]  # in the order of first occurrence
    voted = [judge_score(one) for one, answer in zip(group, answers, strict=True) if answer == winner]
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
    values = {name: _mean_of_known(map(measure, group)) for name, measure in COMPLETION_METRICS.items()}
    values |= {name: _mean_of_known(one["scores"].get(name) for one in group) for name in more}
    if several:
        values |= {name: measure(group) for name, measure in _OF_GROUP.items()}
    unscored = sum(judge_score(one) is None for one in group)
    return SampleValues(group[0]["sample_id"], group[0]["dataset"], values, unscored)


def metric_names_of(samples: Sequence[SampleValues]) -> list[str]:
    """The metrics that any of the samples has, in their order."""
    return list(dict.fromkeys(name for sample in samples for name in sample.values))


def metric_names(measures: Iterable[str], *, several: bool) -> list[str]:
    """The metrics that :func:`summary` will have.

    Args:
        measures: further scores of the predictions.
        several: whether there are several completions of a sample.
    """
    return [*COMPLETION_METRICS, *measures, *(_OF_GROUP if several else ()), *COUNTS]


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
        macro = {
            name: _mean_of_known(column.get(name) for column in by_dataset.values())
            for name in metric_names_of(samples)
        }
        result[MACRO] = macro | {name: overall[name] for name in COUNTS}
    return result


def _metrics(samples: Sequence[SampleValues]) -> Metrics:
    means: Metrics = {name: mean(known(samples, name)) for name in metric_names_of(samples) or COMPLETION_METRICS}
    return means | {"samples": len(samples), "unscored": sum(sample.unscored for sample in samples)}


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    return mean([value for value in values if value is not None])
