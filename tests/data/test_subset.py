"""Tests of the choice of a subset of held-out samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from grit_lightning.data.subset import subset
from grit_lightning.types import Sample
from support.samples import one_image


def samples(count: int) -> list[Sample]:
    """Return samples whose answers cycle through 0 to 7."""
    return [
        one_image(f"f/{line}", "How many?", str(line % 8), Path("x.png"), (9, 9), (), "vsr", "val", f"f.jsonl:{line}")
        for line in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [None, 20, 99])
def test_a_subset_as_large_as_the_data_is_all_of_it(count: int | None) -> None:
    assert subset(samples(20), count) == samples(20)


def test_a_subset_keeps_the_order_and_is_not_evenly_spaced() -> None:
    drawn = subset(samples(512), 64)
    places = [int(sample.id.split("/")[1]) for sample in drawn]
    assert (len(places), places) == (64, sorted(set(places)))
    assert {sample.answer for sample in drawn} == set("01234567")
    assert subset(samples(512), 0) == []


def test_the_choice_of_a_sample_does_not_depend_on_the_other_samples() -> None:
    drawn = subset(samples(512), 64)
    assert set(subset(samples(512), 32)) < set(drawn)
    assert subset(samples(512)[::-1], 64) == drawn[::-1]
    kept = [sample for sample in samples(512) if sample in drawn or int(sample.answer) < 4]
    assert subset(kept, 64) == drawn
