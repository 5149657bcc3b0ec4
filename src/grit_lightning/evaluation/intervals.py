"""Bootstrap intervals: how far a mean over these samples may be from that over others of their kind.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), by ``scipy``. What is
drawn again is samples, never completions: those of one sample are alike. They say nothing of another training seed.
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
    """Ends of an interval."""

    low: float
    high: float


Intervals = dict[str, Interval | None]
"""By metric; ``None`` where fewer than two samples have it."""


class Difference(NamedTuple):
    """How a metric differs on the same samples.

    Attributes:
        mean: second − first; ``None`` where no sample has both.
        interval: of that mean, by resampling the samples' differences.
        samples: that have it in both.
    """

    mean: float | None
    interval: Interval | None
    samples: int


def intervals(predictions: Iterable[Prediction], *, resamples: int) -> dict[str, Intervals]:
    """An interval for each mean of ``metrics.summary``, by dataset; for ``MACRO``, datasets are resampled apart.

    Args:
        predictions: what the means are of.
        resamples: how often the samples are drawn again.
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
    """The interval of the unweighted mean of the strata's means; ``None`` where a stratum has fewer than two values."""
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
    """Each metric's paired difference over the samples that both have, by name."""
    other = {sample.sample_id: sample.values for sample in second}
    return {name: _difference([_changes(first, other, name)], resamples) for name in metric_names_of(first)}


def differences_by_dataset(
    first: Sequence[SampleValues], second: Sequence[SampleValues], *, resamples: int
) -> dict[str, Mapping[str, Difference]]:
    """The same over all samples, under ``OVERALL``, by dataset, and of several their unweighted mean, ``MACRO``."""
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
    """What a metric changes by on each sample where both have it, second − first."""
    return [
        after - before
        for sample in first
        if (before := sample.values.get(name)) is not None
        and (after := second.get(sample.sample_id, {}).get(name)) is not None
    ]


def _difference(strata: Sequence[Sequence[float]], resamples: int) -> Difference:
    """Of the unweighted mean of the strata's means."""
    values = [changes for changes in strata if changes]
    mean = float(np.mean([np.mean(changes) for changes in values])) if values else None
    return Difference(mean, bootstrap(values, resamples), sum(map(len, values)))
