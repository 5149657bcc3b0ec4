"""Tests of questions with answer options."""

from __future__ import annotations

import pytest

from grit_lightning.grounding.options import chosen_option, with_options

OPTIONS = ("red", "blue car", "none")


def test_each_option_has_a_letter_below_the_question() -> None:
    assert with_options("Which?", OPTIONS) == "Which?\n(A) red\n(B) blue car\n(C) none"
    assert with_options("Which?", ()) == "Which?"


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("B", "blue car"),
        (" b ", "blue car"),
        ("(B)", "blue car"),
        ("B.", "blue car"),
        ("b)", "blue car"),
        ("(B) blue car", "blue car"),
        ("B: blue car", "blue car"),
        ("blue car", "blue car"),
        ("D", "D"),  # there is no fourth option
        ("(A) blue car", "(A) blue car"),  # letter and text disagree
        ("a blue car", "a blue car"),
        ("A or B", "A or B"),
        ("", ""),
    ],
)
def test_an_answer_names_an_option_by_its_letter_or_text_and_is_kept_otherwise(answer: str, chosen: str) -> None:
    assert chosen_option(answer, OPTIONS) == chosen


def test_an_option_that_is_a_letter_goes_before_the_letter_of_another() -> None:
    assert chosen_option("B", ("C", "A", "B")) == "B"
    assert chosen_option("(B)", ("C", "A", "B")) == "A"


def test_without_options_an_answer_is_only_stripped() -> None:
    assert chosen_option(" B ", ()) == "B"
