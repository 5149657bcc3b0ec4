"""Tests of the offline judge: pairs of answers, each read by hand, that must count as equal or as different."""

from __future__ import annotations

import unicodedata

import pytest

from grit_lightning.judge.exact import ExactMatch

EQUAL = [
    ("yes", " Yes"),
    ("yes", "YES!"),
    ("yes", "\"Yes.\""),
    ("No", "**No**"),
    ("hot dog", "a hot dog"),
    ("hot dog", "A  hot\n dog"),
    ("hot dog", "the hot-dog"),
    ("apple", "an apple"),
    ("cat", "The \"cat\""),
    ("A", "a"),
    ("A", "(A)"),
    ("A", "A."),
    ("Option A.", "option a"),
    ("A, B", "a B"),
    ("t-shirt", "T shirt"),
    ("it's", "its"),
    ("don't", "don’t"),
    ("2", "Two."),
    ("2", "2.0"),
    ("2", "02"),
    ("two cats", "The 2 cats."),
    ("21", "twenty-one"),
    ("1000", "1,000"),
    ("0.5", ".5"),
    ("-5", "−5"),
    ("-5", "–5.0"),
    ("5", "+5"),
    ("5%", "5 %"),
    ("5%", "5 percent"),
    ("5%", "five per cent"),
    ("$5", "$ 5.00"),
    ("salt & pepper", "salt and pepper"),
    ("C++", "c ++"),
    ("5-6", "5 – 6"),
    ("1/2", "1 / 2"),
    ("Straße", "STRAẞE"),
    ("café", "cafe\u0301"),
    ("각", "\u1100\u1161\u11a8"),
    ("हिन्दी", " हिन्दी।"),
    ("5", "５"),
    ("-5", "－５"),
    ("50%", "５０％"),
    ("12.5", "１２．５"),
    ("3", "٣"),
    ("猫", "「猫」。"),
    ("cat", "c\u00adat\u200b"),
]  # fmt: skip
DIFFERENT = [
    ("2", "3"),
    ("2", "2 cats"),
    ("20", "2"),
    ("1.5", "15"),
    ("yes", "no"),
    ("yes", "yes, it is"),
    ("A", "B"),
    ("A", ""),
    ("A", "an"),
    ("A", "A cat"),
    ("A and B", "B"),
    ("a or b", "b"),
    ("A, B", "B"),
    ("A B", "B"),
    ("(A) cat", "cat"),
    ("A. cat", "cat"),
    ("A: cat", "cat"),
    ("Option A is right", "Option is right"),
    ("vitamin A tablets", "vitamin tablets"),
    ("the", ""),
    ("C++", "C"),
    ("C#", "C"),
    ("C++", "C#"),
    ("-5", "5"),
    ("-$5", "$5"),
    ("$5", "5"),
    ("$5", "€5"),
    ("5%", "5"),
    ("5°", "5"),
    ("5+", "5"),
    ("~5", "5"),
    ("<5", ">5"),
    ("#1", "1"),
    ("+", "-"),
    ("?", "!"),
    ("1/2", "12"),
    ("1/2", "1 2"),
    ("12:30", "1230"),
    ("12:30", "12 30"),
    ("5-6", "56"),
    ("5-6", "5 6"),
    ("5*6", "5 6"),
    ("x^2", "x2"),
    ("m²", "m2"),
    ("½", "1/2"),
    ("①", "1"),
    ("Ａ", "A"),
    ("ﬁ", "fi"),
    ("café", "cafe"),
    ("कि", "की"),
    ("नमस्ते", "नमसते"),
    ("שָׁלוֹם", "שלום"),
    ("ท่า", "ทา"),
    ("がき", "かき"),
    ("👍", "👎"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_spellings_of_one_answer_score_1(reference: str, answer: str) -> None:
    score = ExactMatch()("How many?", reference, answer)
    assert score == 1.0
    assert type(score) is float
    assert ExactMatch()("Another question?", answer, reference) == 1.0


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_different_answers_score_0(reference: str, answer: str) -> None:
    assert ExactMatch()("How many?", reference, answer) == 0.0
    assert ExactMatch()("How many?", answer, reference) == 0.0


@pytest.mark.parametrize("pair", [*EQUAL, *DIFFERENT])
def test_composed_and_decomposed_letters_are_the_same(pair: tuple[str, str]) -> None:
    for text in pair:
        assert ExactMatch()("?", text, unicodedata.normalize("NFD", text)) == 1.0
