"""Bootstrap confidence intervals of metrics and of paired differences between metrics.

The intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13),
computed by ``scipy``. Samples are resampled, never completions, because the completions of one sample are correlated.
The intervals cover the choice of samples only; they do not cover the variation between training seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from grit_lightning.evaluation.metrics import (
    MACRO,
    OVERALL,
    Metrics,
    SampleValues,
    datasets_of,
    known,
    metric_names_of,
    sample_values,
)
from grit_lightning.evaluation.predictions import Prediction

CONFIDENCE = 0.95

_SEED = 0
_BATCH = 200
"""Resamples held in memory at once."""


class Interval(NamedTuple):
    """The lower and upper end of a confidence interval."""

    low: float
    high: float


Intervals = dict[str, Interval | None]
"""Intervals by metric name; ``None`` for a metric without an interval, see :func:`bootstrap`."""


class Difference(NamedTuple):
    """The paired difference of one metric between two sets of predictions for the same samples.

    Attributes:
        mean: mean of second − first; ``None`` if no sample has the metric in both.
        interval: confidence interval of that mean, by resampling the per-sample differences.
        samples: number of samples that have the metric in both.
    """

    mean: float | None
    interval: Interval | None
    samples: int


def intervals(predictions: Iterable[Prediction], *, resamples: int) -> dict[str, Intervals]:
    """Return an interval for each mean of ``metrics.summary``, by dataset and metric name.

    For ``MACRO``, each dataset is resampled separately.

    Args:
        predictions: the predictions whose metrics are averaged.
        resamples: number of bootstrap resamples; 0 for no intervals.
    """
    samples = sample_values(predictions)
    names = metric_names_of(samples)
    by_dataset = datasets_of(samples)
    result = {OVERALL: {name: bootstrap([known(samples, name)], resamples) for name in names}}
    result |= {
        dataset: {name: bootstrap([known(those, name)], resamples) for name in names}
        for dataset, those in by_dataset.items()
    }
    if len(by_dataset) > 1:
        result[MACRO] = {
            name: bootstrap([values for those in by_dataset.values() if (values := known(those, name))], resamples)
            for name in names
        }
    return result


def bootstrap(strata: Sequence[Sequence[float]], resamples: int) -> Interval | None:
    """Return the 95 % interval of the unweighted mean of the strata's means.

    Return ``None`` if ``resamples`` is 0, there is no stratum, or a stratum has fewer than two values.
    """
    if not resamples or not strata or min(map(len, strata)) < 2:
        return None
    drawn = stats.bootstrap(
        [np.asarray(values, dtype=float) for values in strata],
        _mean_of_means,
        n_resamples=resamples,
        batch=min(_BATCH, resamples),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=_SEED,
    ).confidence_interval
    return Interval(float(drawn.low), float(drawn.high))


def _mean_of_means(*strata: np.ndarray, axis: int) -> np.ndarray:
    return sum(values.mean(axis=axis) for values in strata) / len(strata)


def differences(
    first: Sequence[SampleValues], second: Sequence[SampleValues], *, resamples: int
) -> Mapping[str, Difference]:
    """Return the paired difference of each metric, by name, over the samples that have it in both."""
    other = {sample.sample_id: sample.values for sample in second}
    return {name: _difference([_changes(first, other, name)], resamples) for name in metric_names_of(first)}


def differences_by_dataset(
    first: Sequence[SampleValues], second: Sequence[SampleValues], *, resamples: int
) -> dict[str, Mapping[str, Difference]]:
    """Return the paired differences by dataset and metric name.

    ``OVERALL`` holds the differences over all samples. If there are several datasets, ``MACRO`` holds the unweighted
    mean over the datasets.
    """
    result = {OVERALL: differences(first, second, resamples=resamples)}
    by_dataset = datasets_of(first)
    result |= {name: differences(those, second, resamples=resamples) for name, those in by_dataset.items()}
    if len(by_dataset) > 1:
        other = {sample.sample_id: sample.values for sample in second}
        result[MACRO] = {
            name: _difference(
                [changes for those in by_dataset.values() if (changes := _changes(those, other, name))], resamples
            )
            for name in metric_names_of(first)
        }
    return result


def _changes(first: Sequence[SampleValues], second: Mapping[str, Metrics], name: str) -> list[float]:
    """Return second − first of a metric for each sample that has it in both."""
    return [
        after - before
        for sample in first
        if (before := sample.values.get(name)) is not None
        and (after := second.get(sample.sample_id, {}).get(name)) is not None
    ]


def _difference(strata: Sequence[Sequence[float]], resamples: int) -> Difference:
    """Return the difference as the unweighted mean of the strata's means; empty strata are ignored."""
    values = [changes for changes in strata if changes]
    mean = float(np.mean([np.mean(changes) for changes in values])) if values else None
    return Difference(mean, bootstrap(values, resamples), sum(map(len, values)))
