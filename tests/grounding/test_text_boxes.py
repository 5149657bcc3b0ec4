"""Tests of reading boxes: every written form is read, each number whole or not at all."""

import math

import pytest

from grit_lightning.grounding.text_boxes import find_boxes, native_places, plain_boxes


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[1, 2, 3, 4]", [(1, 2, 3, 4)]),
        ("1,2,3,4", [(1, 2, 3, 4)]),
        ("(1,  2,\n3,\t4)", [(1, 2, 3, 4)]),
        ("1 , 2, 3, 4", []),  # no space before a comma
        ("1, 2, 3", []),
        ("1, 2, 3, 4px", []),  # the fourth number must end at a word boundary
        ("x1, 2, 3, 4", []),  # and the first must start at one
        ("1.5, 2.5, 3.5, 4.5", []),
        ("1, 2, 3, 4, 5, 6, 7, 8", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("1, 2, 3, 4, 5, 6, 7", [(1, 2, 3, 4)]),
        ("[4, 3, 2, 1] [0, 0, 0, 0] [0, 0, 0, 0]", [(4, 3, 2, 1), (0, 0, 0, 0), (0, 0, 0, 0)]),
    ],
)
def test_plain_boxes_follow_the_reference_rule(text, boxes):
    assert [found.box for found in plain_boxes(text)] == boxes


def found(text):
    return [(f.box, f.label, f.form) for f in find_boxes(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"bbox_2d": [1, 2, 3, 4], "label": "cat"}', [((1, 2, 3, 4), "cat", "json")]),
        ('{"label": "cat", "bbox_2d": [1.5, 2, 3e1, -4]}', [((1.5, 2, 30, -4), "cat", "json")]),
        ('```json\n[{"bbox_2d":[1,2,3,4]},\n{"bbox_2d":[5,6,7,8],"label":7}]\n```',
         [((1, 2, 3, 4), None, "json"), ((5, 6, 7, 8), None, "json")]),
        # In either quotes.
        ("{'bbox_2d': [1, 2, 3, 4], 'label': 'the dog\\'s \"ball\"'}", [((1, 2, 3, 4), "the dog's \"ball\"", "json")]),
        ("{'label': \"caf\\u00e9\", \"bbox_2d\": [1, 2, 3, 4]}", [((1, 2, 3, 4), "café", "json")]),
        # Nested lists: of boxes, or of two corners.
        ('{"bbox_2d": [[1, 2, 3, 4]], "label": "cat"}', [((1, 2, 3, 4), "cat", "json")]),
        ('{"bbox_2d": [[1, 2, 3, 4], [-5, 6.5, 7, 8]], "label": "cat"}',
         [((1, 2, 3, 4), "cat", "json"), ((-5, 6.5, 7, 8), "cat", "json")]),
        ('{"bbox_2d": [[1, 2], [3, 4]]}', [((1, 2, 3, 4), None, "json")]),
        ('{"bbox_2d": [[1, 2, 3, 4], [5, 6]]}', []),
        # Another key, or an object that is not closed: read as bare numbers.
        ('{"bbox": [1, 2, 3, 4]}', [((1, 2, 3, 4), None, "plain")]),
        ('{"bbox_2d": "1, 2, 3, 4"}', [((1, 2, 3, 4), None, "plain")]),
        ('{"bbox_2d": [1, 2, 3, 4, 5]}', []),
        ('{"bbox_2d": [1, 2, 3, 4]', [((1, 2, 3, 4), None, "plain")]),
        ('{"bbox_2d": [1, 2, 3]}', []),
        ('{"bbox_2d": [true, 2, 3, 4]}', []),
        ('{"bbox_2d": [NaN, 2, 3, 4]}', []),
        ('{"bbox_2d": [1.0, 2.0, 3.0, 1e999]}', []),
        ('{"bbox_2d": "1.0"}', []),
        # A label between two halves of four numbers does not join them, nor does the gap it leaves.
        ('1, 2, {"bbox_2d": [5, 6, 7, 8]} 3, 4', [((5, 6, 7, 8), None, "json")]),
        ("<ref>two cats</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>",
         [((1, 2, 3, 4), "two cats", "ref"), ((5, 6, 7, 8), "two cats", "ref")]),
        ("9, 9, 9, 9 <ref>cat</ref> <box>[[1, 2, 3, 4]]</box>",
         [((9, 9, 9, 9), None, "plain"), ((1, 2, 3, 4), "cat", "ref")]),
        ("<box>[[1, 2, 3.5, 4]]</box>", [((1, 2, 3.5, 4), None, "ref")]),
        ("<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
         [((1, 2, 3, 4), "cat", "ref")]),
        ("<|box_start|>(1, 2), (3, 4)<|box_end|>", [((1, 2, 3, 4), None, "ref")]),
        ("(1,2),(3,4)", [((1, 2, 3, 4), None, "plain")]),  # as it is decoded without special tokens
        ("(1,2),(3,4),(5,6)", []),  # a polygon
    ],
)  # fmt: skip
def test_find_boxes_reads_each_form_once_in_order(text, expected):
    assert found(text) == expected


def test_numbers_too_long_to_read_are_infinite_not_an_error():
    digits = "9" * 5000  # int() refuses more than 4300
    assert found(f"1, 2, 3, {digits}") == [((1, 2, 3, math.inf), None, "plain")]
    assert found(f'{{"bbox_2d": [1.0, 2.0, 3.0, {digits}]}}') == []


def test_brackets_nested_past_the_recursion_limit_are_no_box():
    assert found('{"bbox_2d": ' + "[" * 100_000 + "}") == []


def test_offsets_point_into_the_text():
    text = 'a {"bbox_2d": [1, 2, 3, 4]} b <ref>x</ref><box>[5, 6, 7, 8]</box> 9, 9, 9, 9'
    assert [text[f.start : f.end] for f in find_boxes(text)] == [
        '{"bbox_2d": [1, 2, 3, 4]}',
        "5, 6, 7, 8",
        "9, 9, 9, 9",
    ]


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[-1, 2.5, +3, 4e1]", [(-1, 2.5, 3, 40)]),
        ("[−1, .5, 3, 4]", [(-1, 0.5, 3, 4)]),
        ("1.5, 2.5, 3.5, 4.5.", [(1.5, 2.5, 3.5, 4.5)]),
        ("1 , 2 ,3\n, 4, and", [(1, 2, 3, 4)]),
        ("[[1, 2, 3, 4], [5, 6, 7, 8]]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("[5., 6., 7., 8.]", [(5, 6, 7, 8)]),
        # Four numbers, but not whole.
        ("x1, 2, 3, 4", []),
        ("1.2.3, 4, 5, 6", []),
        ("1, 2, 3, 4px", []),
        ("1, 2, 3, 4%", []),
        ("$1, 2, 3, 4", []),
        ("5-1, 2, 3, 4", []),
        ("12:30, 2, 3, 4", []),
        ("1/2, 2, 3, 4", []),
        ("10'000, 2, 3, 4", []),
        ("1, 2, 3, 4.5.6", []),
        ("1e5e6, 2, 3, 4", []),
        ("1,000, 2, 3", []),  # thousands
        # Not exactly four in a row.
        ("1, 2, 3, 4, 5", []),
        ("1, 2, 3, 4, 5th", []),
        ("NaN, 1, 2, 3, 4", []),
        ("1, 2, 3, 4, 5, 6, 7, 8", []),
        ("1, 2, 3", []),
        ("1; 2; 3; 4", []),
    ],
)
def test_numbers_are_read_whole_or_not_at_all(text, boxes):
    assert [found.box for found in find_boxes(text)] == boxes


def test_numbers_are_where_they_are_said_to_be():
    text = "{'bbox_2d': [[1, -2.5, 3e1, 4], [5, 6, 7, 8]]} (1,2), (30,40). [9., 9, 10, 11]"
    numbers = [[text[start:end] for start, end in box.numbers] for box in find_boxes(text)]
    assert numbers == [["1", "-2.5", "3e1", "4"], ["5", "6", "7", "8"], ["1", "2", "30", "40"], ["9", "9", "10", "11"]]
    first, second, *_ = find_boxes(text)
    assert text[first.start : first.end] == "{'bbox_2d': [[1, -2.5, 3e1, 4"
    assert text[second.start : second.end] == "5, 6, 7, 8]]}"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("[1, 2, 3, 4]", []),
        ('{"bbox_2d": [1, [2]], "label": "9"}', ["[1, [2]]"]),
        ("'bbox_2d': 7, 8", ["7"]),
        ("'bbox_2d': [7, 8", [""]),
        ("<box>cat</box> <|box_start|>(1, 2)<|box_end|><box>3", ["cat", "(1, 2)", "3"]),
    ],
)
def test_native_places_are_found_whatever_they_hold(text, places):
    assert [text[start:end] for start, end in native_places(text)] == places
