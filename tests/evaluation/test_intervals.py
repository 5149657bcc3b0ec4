"""Tests of bootstrap intervals against plain resampling and against the normal approximation."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from grit_lightning.evaluation.intervals import bootstrap, differences, intervals
from grit_lightning.evaluation.metrics import sample_values, summary
from support.predicted import grounded, record, records


def test_the_interval_of_a_mean_equals_percentiles_of_resampled_means() -> None:
    draw = random.Random(0)
    values = [draw.random() for _ in range(40)]
    means = sorted(statistics.fmean(draw.choices(values, k=40)) for _ in range(20_000))
    found = bootstrap([values], 20_000)
    assert found is not None
    assert found.low == pytest.approx(means[500], abs=0.003)
    assert found.high == pytest.approx(means[19_500], abs=0.003)


def test_the_interval_of_many_samples_approaches_the_normal_one() -> None:
    draw = random.Random(1)
    values = [float(draw.random() < 0.3) for _ in range(2000)]
    mean, error = statistics.fmean(values), statistics.pstdev(values) / math.sqrt(2000)
    found = bootstrap([values], 4000)
    assert found == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error + 0.0005)


def test_each_dataset_is_resampled_separately() -> None:
    draw = random.Random(2)
    large, small = [draw.random() for _ in range(400)], [draw.random() for _ in range(20)]
    found = bootstrap([large, small], 4000)
    assert found is not None
    error = math.sqrt(statistics.pvariance(large) / 400 + statistics.pvariance(small) / 20) / 2
    mean = (statistics.fmean(large) + statistics.fmean(small)) / 2
    assert found == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.15 * error)


def test_one_value_or_no_resamples_give_no_interval() -> None:
    assert bootstrap([[1.0]], 100) is None
    assert bootstrap([[]], 100) is None
    assert bootstrap([[1.0, 2.0], [1.0]], 100) is None
    assert bootstrap([[1.0, 2.0]], 0) is None
    assert bootstrap([[1.0, 1.0]], 100) == (1.0, 1.0)


def test_every_mean_lies_in_its_deterministic_interval() -> None:
    ones = [
        record(grounded(answer=str(number % 2)), dataset, sample_id=f"{dataset}/{number}")
        for dataset in ("tallyqa", "vsr")
        for number in range(20)
    ]
    found = intervals(ones, resamples=200)
    values = summary(ones)
    assert list(found) == ["overall", "tallyqa", "vsr", "macro"]
    for name in found:
        for metric, interval in found[name].items():
            mean = values[name][metric]
            assert (interval is None) is (mean is None), (name, metric)
            if interval is not None and mean is not None:
                assert interval.low <= mean <= interval.high, (name, metric)
    assert found == intervals(ones, resamples=200)


def test_samples_are_resampled_not_completions() -> None:
    """Eight equal completions carry no more information than one."""
    once = [record(grounded(answer=str(number % 2)), sample_id=str(number)) for number in range(30)]
    often = [
        one for number in range(30) for one in records([grounded(answer=str(number % 2))] * 8, sample_id=str(number))
    ]
    found = intervals(often, resamples=200)["overall"]["accuracy"]
    assert found == intervals(once, resamples=200)["overall"]["accuracy"]
    assert found is not None
    error = math.sqrt(0.25 / 30)  # of a mean of 30 values, half of them 1
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_differences_are_paired_by_sample() -> None:
    first = [record(grounded(answer=str(number % 2)), sample_id=str(number)) for number in range(30)]
    second = [record(grounded(), sample_id=str(number)) for number in reversed(range(10, 40))]
    found = differences(sample_values(first), sample_values(second), resamples=500)
    accuracy = found["accuracy"]
    assert (accuracy.mean, accuracy.samples) == (0.5, 20), "only samples that both have"
    assert accuracy.interval == bootstrap([[1.0, 0.0] * 10], 500)
    same = differences(sample_values(first), sample_values(first[::-1]), resamples=500)["accuracy"]
    assert (same.mean, same.interval, same.samples) == (0.0, (0.0, 0.0), 30), "what all samples share has no spread"
    nothing = differences(sample_values(first[:5]), sample_values(second), resamples=500)["accuracy"]
    assert (nothing.mean, nothing.interval, nothing.samples) == (None, None, 0)
