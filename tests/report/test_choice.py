"""Tests of what a page shows where it cannot show all."""

from __future__ import annotations

import pytest

from grit_lightning.report.choice import evenly_spaced, flips_first
from grit_lightning.report.completions import Part, parts


@pytest.mark.parametrize(
    ("steps", "count", "chosen"),
    [
        ([1, 2, 3], 5, [1, 2, 3]),
        (list(range(1, 101)), 3, [1, 50, 100]),
        (list(range(1, 12)), 5, [1, 3, 6, 9, 11]),
        ([4, 8, 9], 1, [9]),
    ],
)
def test_steps_are_evenly_spaced_with_the_first_and_the_last(steps, count, chosen) -> None:
    found = evenly_spaced(steps, count)
    assert len(found) == len(chosen)
    assert (found[0], found[-1]) == (chosen[0], chosen[-1])
    assert all(abs(a - b) <= 1 for a, b in zip(found, chosen, strict=True))


def answer(score: float | None) -> dict:
    return {"scores": {"judge": score}}


def test_samples_that_changed_come_first_both_ways_and_then_typical_ones() -> None:
    before = {"a": answer(0), "b": answer(1), "c": answer(1), "d": answer(0), "e": answer(1), "f": answer(None)}
    after = {"a": answer(1), "b": answer(0), "c": answer(1), "d": answer(0), "e": answer(1), "f": answer(1)}
    assert flips_first(before, after, flips=6, others=2) == (["a", "b", "c", "e"], 2, 2)
    assert flips_first({}, after, flips=6, others=3) == (["a", "c", "e"], 0, 0)


def test_of_too_many_flips_both_directions_keep_their_share() -> None:
    names = [f"s{index:02d}" for index in range(40)]
    before = {name: answer(float(index >= 30)) for index, name in enumerate(names)}
    after = {name: answer(float(index < 30)) for index, name in enumerate(names)}
    found = flips_first(before, after, flips=8, others=4)
    assert found == (["s00", "s05", "s10", "s15", "s20", "s25", "s30", "s35"], 8, 40)


def test_the_words_that_write_a_box_are_parts_of_their_own_and_controls_are_escaped() -> None:
    text = 'a {"bbox_2d": [1, 2, 3, 4]}\nand\x1b[1, 2, 3, 5]'
    assert parts(text) == [
        Part("a ", None),
        Part('{"bbox_2d": [1, 2, 3, 4]}', 0),
        Part("\nand\\x1b[", None),
        Part("1, 2, 3, 5", 1),
        Part("]", None),
    ]
