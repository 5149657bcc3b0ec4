"""Tests of answer normalisation: which answers count as equal, and which text is a count."""

import pytest

from grit_lightning.grounding import as_count, normalise

WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("  Hot\n DOG. ", "hot dog"),
        ("The two cats.", "2 cats"),
        ("an apple", "apple"),
        ("theatre", "theatre"),
        ("(A)", "a"),  # a choice, not an article
        ("the", "the"),
        ("Option A.", "option a"),
        ("2.0", "2"),
        ("2.50", "2.5"),
        ("02", "2"),
        (".5", "0.5"),
        ("1,000", "1000"),
        ("1,2,3", "1 2 3"),
        ("-5", "-5"),
        ("−5.0", "-5"),
        ("-0", "0"),
        ("5-6", "5 - 6"),
        ("50%", "50 %"),
        ("3rd", "3rd"),
        ("Twenty-one", "21"),
        ("ninety nine", "99"),
        ("twenty ten", "20 10"),
        ("one", "1"),
        ("someone", "someone"),
        ("don't", "dont"),
        ("don’t", "dont"),
        ("snake_case", "snake case"),
        ("+", "+"),
        (" > ", ">"),
        ("", ""),
        (" ", ""),
        ("7" * 5000, "7" * 5000),  # int() refuses more than 4300 digits
    ],
)
def test_normalise_folds_case_articles_punctuation_and_spelling_of_numbers(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(("value", "word"), list(enumerate(WORDS.split())))
def test_number_words_equal_digits(value, word):
    assert normalise(word) == normalise(str(value)) == normalise(f"{value}.0") == str(value)
    assert as_count(word) == value


@pytest.mark.parametrize(
    ("a", "b"), [("2", "3"), ("5", "-5"), ("1.5", "15"), ("20", "2"), ("A", "B"), ("+", "-"), ("yes", "no"), ("0", "")]
)
def test_different_answers_stay_different(a, b):
    assert normalise(a) != normalise(b)


@pytest.mark.parametrize("text", ["", "yes", "2.5", "-1", "2 cats", "1 2", "9" * 10, "9" * 5000, "²"])
def test_text_that_is_no_whole_number_has_no_count(text):
    assert as_count(text) is None


def test_as_count_reads_digits_number_words_and_whole_decimals():
    assert [as_count(text) for text in ["0", "3", " three. ", "3.0", "twenty-five"]] == [0, 3, 3, 3, 25]
