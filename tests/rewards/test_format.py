"""Tests of the format rewards: every row of GRIT's table by hand."""

import itertools

import pytest

from grit_lightning.rewards.format import answer_format, think_rethink


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("answer", 0.0),
        ("</answer>", 0.0),
        ("<answer>", 0.5),
        ("<answer>2</answer>", 0.5),
        ("<answer>2</answer></answer>", 0.5),
        ("<answer><answer>", 0.25),
        ("<answer>1</answer><answer>2</answer><answer>3</answer>", 0.25),
    ],
)
def test_answer_format_rewards_presence_and_uniqueness_of_the_answer_tag(make_sample, make_completion, text, expected):
    assert answer_format(make_sample(), make_completion(text), present=0.25, once=0.25) == expected
    # Unequal sizes tell the two parts apart.
    unequal = {0.0: 0.0, 0.25: 1.0, 0.5: 11.0}[expected]
    assert answer_format(make_sample(), make_completion(text), present=1.0, once=10.0) == unequal


T, _T, R, _R = "<think>", "</think>", "<rethink>", "</rethink>"


@pytest.mark.parametrize(
    ("text", "tags", "content"),
    [
        ("", 0, 0),
        (T, 1, 0),
        (f"{T} a b {_T}", 2, 0),
        (f"{T} a b {_T} {R} c {_R}", 4, 1),
        (f"{T} a {_T} {R} c {_R}", 4, 0),  # one word of thought
        (f"{T}{_T}{R}{_R}", 4, 0),
        (f"{_T} a b {T} {R} c {_R}", 3, 0),  # </think> is not after <think>
        (f"{R} a b {_R} {T} c {_T}", 2, 0),  # after </think> there is no <rethink>
        (f"{_R}{R}{_T}{T}", 1, 0),  # only <think>, the last, is found
        (f"{_T}{R}{_R}", 3, 0),  # the missing <think> does not advance
        (f"{T} a b {R} c {_R}", 3, 0),
        (f"{T} a b {_T} c {_R}", 3, 0),
        (f"{T} a b {_T} {R} c", 3, 0),
        (f"{T} a b {_T} {R} c {_R} {T}", 1, 0),  # search goes on after the *last* <think>
        (f"{T} a b {_T} {R} c {_R} {_T}", 2, 0),
        (f"{T} a b {T} c {_T} {R} d {_R}", 4, 0),  # the thought begins at the last <think>
        (f"{T} a {_T} b c {_T} {R} d {_R}", 4, 0),  # and ends at the first </think>
    ],
)
def test_think_rethink_rewards_tags_in_order_and_enough_words_of_thought(
    make_sample, make_completion, text, tags, content
):
    completion = make_completion(text)
    value = think_rethink(make_sample(), completion, tag=0.1, content=0.1, min_words=2)
    assert value == pytest.approx(0.1 * tags + 0.1 * content, abs=1e-15)
    assert think_rethink(make_sample(), completion, tag=1, content=10, min_words=2) == tags + 10 * content


def test_think_rethink_equals_the_rule_read_literally(make_sample, make_completion):
    def literal(text):
        found = 0
        for tag in (T, _T, R, _R):
            if tag in text:
                found += 1
                text = text.split(tag)[-1]
        return found

    for length in range(6):
        for parts in itertools.product((T, _T, R, _R), repeat=length):
            completion = make_completion(" x ".join(parts))
            value = think_rethink(make_sample(), completion, tag=1, content=0, min_words=2)
            assert value == literal(completion.text), completion.text
