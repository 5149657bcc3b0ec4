"""Tests of the repetition, length and digit rewards, by hand and against plain loops."""

import random

import pytest

from grit_lightning.rewards.text_statistics import digit_share, length_budget, repetition


def repeat(sample, completion, **options):
    return repetition(sample, completion, **({"size": 0.5, "word_ngram": 8, "token_ngram": 8} | options))


def words(n):
    return " ".join(f"w{i}" for i in range(n))


@pytest.mark.parametrize(
    ("text", "token_ids", "expected"),
    [
        (words(100), range(100), 0.5),  # nothing repeats
        (words(7), [1] * 100, 0.5),  # fewer than 8 words
        ("a " * 100, [1] * 15, 0.5),  # fewer than 16 tokens
        (words(8), range(16), 0.5),  # 8 words: no position
        (words(8), [1] * 16, 0.0),  # t = 1/1
        # Two equal 8-grams: w = 1 of 16 − 8 positions.
        (f"{words(8)} {words(8)}", range(16), 0.5 * (1 - 1 / 8)),
        (f"{words(8)} {words(8)}", [*range(8), *range(8)], 0.5 * (1 - 1 / 8 - 1)),
        # Two equal 8-grams, then one more token: t = 1 of 17 − 15 positions.
        (words(8), [*range(8), *range(8), 99], 0.5 * (1 - 1 / 2)),
        # One word repeated: i = 0 … 84 have a full second 8-gram, of 92 positions; every token position repeats.
        ("a " * 100, [1] * 100, 0.5 * (1 - 85 / 92 - 85 / 85)),
        # The 8-grams are not adjacent: no repetition.
        (f"{words(8)} x {words(8)}", range(17), 0.5),
    ],
)
def test_repetition_by_hand(make_sample, make_completion, text, token_ids, expected):
    assert repeat(make_sample(), make_completion(text, token_ids)) == pytest.approx(expected, abs=1e-15)


def test_repetition_equals_the_rule_read_literally(make_sample, make_completion):
    def share(items, n, positions):
        same = [all(i + k + n < len(items) and items[i + k] == items[i + k + n] for k in range(n)) for i in positions]
        return sum(same) / len(same) if same else 0.0

    draw = random.Random(0)
    for _ in range(300):
        text = [draw.choice("ab") for _ in range(draw.randrange(3, 40))]
        ids = [draw.randrange(2) for _ in range(draw.randrange(6, 40))]
        w = share(text, 3, range(len(text) - 3))
        t = share(ids, 3, range(len(ids) - 5))
        value = repeat(make_sample(), make_completion(" ".join(text), ids), word_ngram=3, token_ngram=3)
        assert value == pytest.approx(0.5 * (1 - w - t), abs=1e-12)


@pytest.mark.parametrize(("text", "token_ids"), [("", ()), (" \n", (5,)), ("", (5, 6))])
def test_defect_5_an_empty_completion_gets_no_repetition_reward(make_sample, make_completion, text, token_ids):
    assert repeat(make_sample(), make_completion(text, token_ids)) == 0.0


def test_repetition_of_text_without_token_ids_is_unscored(make_sample, make_completion):
    assert repeat(make_sample(), make_completion("one two", ())) is None


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0.0), ("abc", 0.0), ("0123456789", 1.0), ("a1 2", 0.5), ("²٣", 0.0)]
)
def test_digit_share_is_the_share_of_ascii_digits_among_all_characters(make_sample, make_completion, text, expected):
    assert digit_share(make_sample(), make_completion(text)) == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(0, 1.0), (1, 1.0), (80, 1.0), (81, 0.95), (90, 0.5), (99, 0.05), (100, 0.0), (101, 0.0), (500, 0.0)],
)
def test_length_budget_by_hand(make_sample, make_completion, tokens, expected):
    text = words(tokens)
    assert length_budget(make_sample(), make_completion(text), limit=100, soft=0.2) == pytest.approx(expected)


def test_length_budget_is_dapos_soft_overlong_punishment_above_its_lowest(make_sample, make_completion):
    def punishment(length, l_max, l_cache):  # arXiv 2503.14476, eq. 13
        if length <= l_max - l_cache:
            return 0.0
        return ((l_max - l_cache) - length) / l_cache if length <= l_max else -1.0

    seen = set()
    for length in range(0, 70):
        completion = make_completion(words(length))
        value = length_budget(make_sample(), completion, limit=64, soft=0.25)
        assert value == pytest.approx(1 + punishment(length, 64, 16), abs=1e-12)
        seen.add(value)
    assert len(seen) == 17


def test_length_budget_without_a_soft_part_is_a_step(make_sample, make_completion):
    values = [length_budget(make_sample(), make_completion(words(n)), limit=10, soft=0.0) for n in (9, 10, 11)]
    assert values == [1.0, 1.0, 0.0]


def test_length_budget_of_text_without_token_ids_is_unscored(make_sample, make_completion):
    assert length_budget(make_sample(), make_completion("one two", ()), limit=100, soft=0.2) is None
    assert length_budget(make_sample(), make_completion("", ()), limit=100, soft=0.2) == 1.0
