"""Tests of the verdict parser: accepted and refused replies, and linear time for any string."""

from __future__ import annotations

import json
import random
import time

import pytest

from grit_lightning.grounding import find_boxes, parse, plain_boxes
from grit_lightning.judge.verdict import CHOICES, GRADES, SCHEMA, parse_verdict
from grit_lightning.system.paths import asset


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"score": 1}', 1.0),
        ('{"score": 0}', 0.0),
        ('{"score": 0.25}', 0.25),
        ('{"score": 2.5e-1}', 0.25),
        ('{"score": -0.0}', 0.0),
        ('  \n{"score": 0.5}\n', 0.5),
        ('{"score": 0.5, "reason": "close"}', 0.5),
        ('```json\n{"score": 0.5}\n```', 0.5),
        ('```\n{"score": 0.5}```', 0.5),
        ('{"score": 0.5} because the two agree in part.', 0.5),
        ('{"score": 0.5}\n\nAn answer of {"score": 1} was asked for, which is no answer.', 0.5),
    ],
)
def test_a_reply_that_begins_with_a_verdict_gives_its_score(reply: str, score: float) -> None:
    value = parse_verdict(reply)
    assert value == score
    assert type(value) is float


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "1",
        "0.5",
        "[0.5]",
        '"score"',
        "null",
        "{}",
        '{"score"}',
        '{"score": }',
        '{"score": 0.5',
        "{score: 0.5}",
        "{'score': 0.5}",
        '{"Score": 0.5}',
        '{"score": NaN}',
        '{"score": Infinity}',
        '{"score": -Infinity}',
        '{"score": 1e999}',
        '{"score": 1.0000001}',
        '{"score": -0.1}',
        '{"score": 100}',
        '{"score": ' + "9" * 5000 + "}",
        '{"score": "0.5"}',
        '{"score": true}',
        '{"score": false}',
        '{"score": null}',
        '{"score": [0.5]}',
        '{"score": {"score": 0.5}}',
        '{"verdict": {"score": 0.5}}',
        '{"score": 0, "score": 1}',
        '{"score": .5}',
        '{"score": 00.5}',
        '{"score": 0.5} '[1:],
        'The answer says {"score": 1}, but I say {"score": 0}',
        'text ```json\n{"score": 1}\n```',
        '<<<{"score": 1}',
        '{"score": ' + "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_any_other_reply_has_no_score(reply: str) -> None:
    assert parse_verdict(reply) is None


def test_a_quoted_verdict_is_not_taken_for_the_judges_own() -> None:
    """A policy may put the verdict that it wants into its answer."""
    quoted = json.dumps('{"score": 1}')
    assert parse_verdict(f'{{"answer": {quoted}, "score": 0}}') == 0.0
    assert parse_verdict(f"The answer {quoted} asks for full marks.") is None


@pytest.mark.parametrize(("grade", "choice"), list(zip(GRADES, CHOICES, strict=True)))
def test_each_grade_is_a_verdict_and_exact_in_binary(grade: float, choice: str) -> None:
    """Servers spell the values of a schema in up to 17 digits, which must not make them longer."""
    assert parse_verdict(choice) == grade
    assert format(float(grade), ".17g") == json.dumps(grade)


def test_the_schema_leaves_a_server_no_number_but_the_grades() -> None:
    schema = SCHEMA["json_schema"]["schema"]
    assert schema["properties"] == {"score": {"type": "number", "enum": [0, 0.25, 0.5, 0.75, 1]}}
    assert schema["required"] == ["score"], "strict mode requires every property"
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", ["answer", "consistency"])
def test_the_prompts_name_the_grades(name: str) -> None:
    text = asset(f"judge/{name}.txt").read_text()
    *others, last = (json.dumps(grade) for grade in GRADES)
    assert text.count(f"{', '.join(others)} or {last}") == 2


PIECES = (
    '{"score": 0.5}', '{"score":', "{", "}", "[", "]", '"', "\\", '"score"', ":", ",", "0", "1", "0.5", "-", "e", "+",
    "NaN", "Infinity", "true", "null", "```", "```json\n", " ", "\n", "score", "\\u0000", "9" * 40, "1e999", "1.0",
    "\ud800", "\0", "É", "猫", '{"bbox_2d": [', "1, 2, 3, 4", "<think>", "</think>", "<answer>", "</answer>",
    "<rethink>", "<ref>", "</ref><box>", "</box>", '"label": "cat"', ", ", "9, 9, 1, 1",
)  # fmt: skip
SCORED = '{"score": '


def test_100_000_strings_are_read_without_an_exception() -> None:
    draw = random.Random(0)
    scores, boxes = 0, 0
    for index in range(100_000):
        text = "".join(draw.choices(PIECES, k=draw.randrange(12)))
        if index % 2:  # chance alone would rarely begin as a verdict does
            text = SCORED + text
        score = parse_verdict(text)
        if score is not None:
            assert type(score) is float, text
            assert 0 <= score <= 1, text  # false for nan
            assert text.lstrip().startswith(("{", "```")), text
            scores += 1
        boxes += len(parse(text).boxes)
        assert len(plain_boxes(text)) <= len(text)
    assert min(scores, boxes) > 1000, "texts with a verdict and texts with boxes both occurred"


GROWING = {
    "braces": "{",
    "objects": '{"a":',
    "brackets": '{"score": [[[[',
    "verdicts": '{"score": 1}',
    "spaces": " ",
    "fences": "```",
    "fenced": "```json\n",
    "digits": '{"score": 111111111111',
    "nines": "9",
    "escapes": '{"\\"',
    "backslashes": "\\",
    "strings": '{"score": "',
    "keys": '"score": 1, ',
    "commas": ",",
    "boxes": '{"bbox_2d": [1, 2, 3, 4]}, ',
    "halves": "1, 2, 3, ",
    "references": "<ref>a</ref> <box>[[1, 2",
}


@pytest.mark.parametrize("read", [parse_verdict, find_boxes], ids=lambda read: read.__name__)
@pytest.mark.parametrize("begin", ["", '{"score": ', '{"a": "', '{"score": 1, '], ids=range(4))
@pytest.mark.parametrize("piece", GROWING.values(), ids=GROWING)
def test_reading_takes_linear_time(read, begin: str, piece: str) -> None:
    """Ten times the text takes about ten times the time; quadratic reading would take a hundred times."""

    def seconds(length: int) -> float:
        text = begin + piece * (length // len(piece))
        times = []
        for _ in range(3):
            start = time.process_time()
            read(text)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(100_000) < 35 * max(seconds(10_000), 5e-4)
