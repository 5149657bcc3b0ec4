"""Metrics of predictions: metric values per sample, and their means over samples.

The sample is the unit of every mean and every interval: the completions of one sample are averaged first.
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
"""Values by metric name; ``None`` for a metric that is defined for none of the samples."""

OVERALL, MACRO = "overall", "macro"
"""Keys beside the dataset names: metrics over all samples, and the unweighted mean over datasets."""

COUNTS = ("samples", "unscored")
"""Metrics that are counts, not means."""


# ---- several completions of one sample ----


def pass_at_k(group: Sequence[Prediction]) -> float | None:
    """Return 1 if any judged completion is right, else 0; ``None`` if the judge scored no completion."""
    verdicts = [right for one in group if (right := is_right(one)) is not None]
    return float(any(verdicts)) if verdicts else None


def majority_vote(group: Sequence[Prediction]) -> float | None:
    """Return the judge's score of the most frequent normalised answer; a tie goes to the answer that was given first.

    Return ``None`` if the judge scored no completion with that answer.
    """
    answers = [grounding.normalise(one["parsed_answer"]) for one in group]
    winner = Counter(answers).most_common(1)[0][0]  # lists ties in the order of first occurrence
    voted = [judge_score(one) for one, answer in zip(group, answers, strict=True) if answer == winner]
    return next((score for score in voted if score is not None), None)


def answer_entropy(group: Sequence[Prediction]) -> float:
    """Return the Shannon entropy of the normalised answers in nats: 0 if all k agree, log k if all differ."""
    answers = Counter(grounding.normalise(one["parsed_answer"]) for one in group)
    return float(stats.entropy(list(answers.values())))


_GROUP_METRICS: Mapping[str, Callable[[Sequence[Prediction]], float | None]] = {
    "pass_at_k": pass_at_k,
    "majority_vote": majority_vote,
    "answer_entropy": answer_entropy,
}


# ---- metric values per sample ----


@dataclass(frozen=True, slots=True)
class SampleValues:
    """Metric values of one sample, averaged over its completions.

    Attributes:
        sample_id: id of the sample.
        dataset: dataset of the sample.
        values: value by metric name; ``None`` for a metric that is not defined for this sample.
        unscored: number of completions that the judge could not score.
    """

    sample_id: str
    dataset: str
    values: Metrics
    unscored: int


def sample_values(predictions: Iterable[Prediction]) -> list[SampleValues]:
    """Return the metric values of each sample, in the order in which the samples first occur."""
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
        values |= {name: measure(group) for name, measure in _GROUP_METRICS.items()}
    unscored = sum(judge_score(one) is None for one in group)
    return SampleValues(group[0]["sample_id"], group[0]["dataset"], values, unscored)


def metric_names_of(samples: Sequence[SampleValues]) -> list[str]:
    """Return the names of the metrics that occur in any sample, in the order of first occurrence."""
    return list(dict.fromkeys(name for sample in samples for name in sample.values))


def metric_names(measures: Iterable[str], *, several: bool) -> list[str]:
    """Return the names of the metrics that :func:`summary` will contain.

    Args:
        measures: names of the additional scores of the predictions.
        several: True if a sample has several completions.
    """
    return [*COMPLETION_METRICS, *measures, *(_GROUP_METRICS if several else ()), *COUNTS]


def datasets_of(samples: Sequence[SampleValues]) -> dict[str, list[SampleValues]]:
    """Group the samples by dataset name, in alphabetical order."""
    names = sorted({sample.dataset for sample in samples})
    return {name: [sample for sample in samples if sample.dataset == name] for name in names}


def known(samples: Sequence[SampleValues], name: str) -> list[float]:
    """Return the values of a metric, skipping samples for which it is not defined."""
    return [value for sample in samples if (value := sample.values.get(name)) is not None]


# ---- means over samples ----


def summary(predictions: Iterable[Prediction]) -> dict[str, Metrics]:
    """Return the means of all metrics, by dataset and metric name.

    ``OVERALL`` holds the means over all samples. If there are several datasets, ``MACRO`` holds the unweighted mean
    over the datasets.

    - ``accuracy``: mean of the judge's raw scores. ``accuracy_binarised``: share of scores above 0. ``exact_match``:
      share of answers equal to the reference answer after ``grounding.normalise``, with any judge.
    - ``grounding_iou``, ``matched_iou``, ``union_iou``, ``giou``, ``precision``, ``recall``: box metrics in original
      pixels, over samples with reference boxes. ``completion_metrics`` defines each in a function of the same name;
      that of ``giou`` is ``matched_giou``.
    - ``grounded_format``, ``box_validity``, ``count_consistency``: see ``is_grounded`` and the functions of the same
      names in ``completion_metrics``.
    - ``tokens``: mean completion length in tokens. ``truncated``: share of completions cut off by the token limit.
    - each additional score, under its name.
    - if a sample has several completions: ``pass_at_k``, ``majority_vote``, ``answer_entropy``.
    - ``samples``: number of samples. ``unscored``: number of completions that the judge could not score.
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
