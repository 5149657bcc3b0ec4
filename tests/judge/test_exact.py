"""Tests of the offline judge."""

from __future__ import annotations

import pytest

from grit_lightning.judge.exact import ExactMatch


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [("2", "Two.", 1.0), ("yes", " Yes", 1.0), ("hot dog", "a hot dog", 1.0), ("2", "3", 0.0), ("2", "2 cats", 0.0)],
)
def test_answers_that_are_equal_after_normalisation_score_1_and_others_0(
    reference: str, answer: str, expected: float
) -> None:
    score = ExactMatch()("How many?", reference, answer)
    assert score == expected
    assert type(score) is float
    assert ExactMatch()("Another question?", reference, answer) == expected
