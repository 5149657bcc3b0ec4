"""Bootstrap intervals: how far a mean over these samples may be from that over others of their kind.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), by ``scipy``. What is
drawn again is samples, never completions: those of one sample are alike. They say nothing of another training seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from grit_lightning.evaluation.metrics import MACRO, OVERALL, SampleValues, datasets_of, known, names_of, sample_values
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
    names = names_of(samples)
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
    other = {sample.sample_id: sample for sample in second}
    pairs = [(sample.values, other[sample.sample_id].values) for sample in first if sample.sample_id in other]
    return {name: _difference(name, pairs, resamples) for name in names_of(first)}


def _difference(name: str, pairs: Sequence[tuple[Mapping[str, float | None], ...]], resamples: int) -> Difference:
    values = [
        after - before
        for first, second in pairs
        if (before := first.get(name)) is not None and (after := second.get(name)) is not None
    ]
    return Difference(float(np.mean(values)) if values else None, bootstrap([values], resamples), len(values))
