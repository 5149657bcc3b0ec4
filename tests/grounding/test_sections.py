"""Tests of the sections of a completion, by hand for each boundary."""

import pytest

from grit_lightning.grounding import TAGS, answer_text, before_rethink, parse

WELL_FORMED = (
    '<think> two: {"bbox_2d": [1, 2, 30, 40], "label": "cat"} and [5, 6, 7, 8] </think>'
    " <rethink> so [9, 9, 10, 10] </rethink> <answer> 2 </answer>"
)


def test_a_well_formed_completion_is_split_into_sections_and_boxes():
    grounded = parse(WELL_FORMED)
    assert grounded.think == ' two: {"bbox_2d": [1, 2, 30, 40], "label": "cat"} and [5, 6, 7, 8] '
    assert grounded.rethink == " so [9, 9, 10, 10] "
    assert grounded.answer == " 2 "
    assert grounded.tags == TAGS
    assert grounded.well_formed
    # The box of the rethink section is no grounding: it follows <rethink>.
    assert [(found.box, found.label, found.form) for found in grounded.boxes] == [
        ((1, 2, 30, 40), "cat", "json"),
        ((5, 6, 7, 8), None, "plain"),
    ]
    assert [WELL_FORMED[found.start : found.end] for found in grounded.boxes] == [
        '{"bbox_2d": [1, 2, 30, 40], "label": "cat"}',
        "5, 6, 7, 8",
    ]


@pytest.mark.parametrize("tag", TAGS)
def test_a_missing_doubled_or_displaced_tag_is_not_well_formed(tag):
    assert not parse(WELL_FORMED.replace(tag, "")).well_formed
    assert not parse(WELL_FORMED.replace(tag, tag + tag)).well_formed
    assert not parse(tag + WELL_FORMED.replace(tag, "")).well_formed or tag == "<think>"
    assert not parse(WELL_FORMED.replace(tag, tag.upper())).well_formed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", None),
        ("yes</answer>", None),
        ("<answer></answer>", ""),
        ("<answer>yes</answer>", "yes"),
        ("<answer>yes", "yes"),
        ("<answer>yes</answer> <answer>no</answer>", "no"),
        ("<answer>yes</answer> <answer>no", "yes"),
        ("<answer>yes <answer>no</answer>", "no"),
        ("<answer>yes</answer> no</answer>", "yes"),
        ("</answer><answer>yes", "yes"),
        ("<answer>no <answer>yes<think>", "yes<think>"),
        ("<ANSWER>yes</ANSWER>", None),
    ],
)
def test_answer_is_the_last_closed_one_else_the_last_open_one(text, answer):
    assert answer_text(text) == answer
    assert parse(text).answer == answer


def test_open_think_ends_at_the_next_section_or_the_end():
    assert parse("<think>a cat").think == "a cat"
    assert parse("<think>a <rethink>b <answer>c").think == "a "
    assert parse("<think>a <rethink>b <answer>c").rethink == "b "
    assert parse("<think>a <answer>c").think == "a "
    assert parse("no tags").think is None


def test_boxes_are_read_before_rethink_else_before_answer_else_everywhere():
    def boxes(text):
        return [found.box for found in parse(text).boxes]

    assert boxes("1,1,2,2 <rethink> 3,3,4,4 <answer> 5,5,6,6") == [(1, 1, 2, 2)]
    assert boxes("1,1,2,2 </rethink> 3,3,4,4 <answer> 5,5,6,6") == [(1, 1, 2, 2), (3, 3, 4, 4)]
    assert boxes("1,1,2,2 3,3,4,4 </answer> 5,5,6,6") == [(1, 1, 2, 2), (3, 3, 4, 4), (5, 5, 6, 6)]


def test_before_rethink_ends_at_the_first_rethink_tag():
    assert before_rethink("a<rethink>b<rethink>c") == "a"
    assert before_rethink("<rethink>") == ""
    assert before_rethink("a</rethink>") is None
