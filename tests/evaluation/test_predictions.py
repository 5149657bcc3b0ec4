"""Tests of prediction files: a round trip keeps everything, and an invalid line is reported and left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from grit_lightning.errors import DataError
from grit_lightning.evaluation.metrics import summary
from grit_lightning.evaluation.predictions import (
    Prediction,
    as_line,
    is_scored,
    key,
    read_predictions,
    write_predictions,
)
from support.predicted import VERSION, grounded, record, records


def test_written_predictions_are_read_back_unchanged(tmp_path: Path) -> None:
    texts = [grounded(), "line\u2028separator \ud7ff 日本\n", f"{'9' * 400}, 0, 1, 2", "\ud800"]
    ones = [*records(texts), record("no", sample_id="f/2")]
    write_predictions(tmp_path / "p.jsonl", ones)
    assert read_predictions(tmp_path / "p.jsonl") == (ones, [])
    assert len((tmp_path / "p.jsonl").read_bytes().splitlines()) == 5
    assert list(map(key, ones)) == [("f/1", 0), ("f/1", 1), ("f/1", 2), ("f/1", 3), ("f/2", 0)]
    assert {one["prompt_version"] for one in ones} == {VERSION}


def test_is_scored_is_false_if_the_score_is_missing() -> None:
    assert is_scored(record(grounded()))
    assert not is_scored(record(grounded(), judge=lambda *_: None))


def torn(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:100]


def torn_within_a_character(lines: list[bytes]) -> None:
    lines[-1] = b'{"text": "\xe7\x8c'


def twice(lines: list[bytes]) -> None:
    lines.append(lines[1])


def another_answer_for_the_same(lines: list[bytes]) -> None:
    lines.append(as_line(record("no", sample_id="f/1")).encode())


def a_list(lines: list[bytes]) -> None:
    lines.append(b"[1]\n")


def deep(lines: list[bytes]) -> None:
    lines.append(b"[" * 100_000 + b"\n")


def changed(**fields: object) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        one = record("no", sample_id="f/9") | fields
        lines.append(as_line({name: value for name, value in one.items() if value is not ...}).encode())

    return change


def number_in(field: str, written: str) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        line = json.dumps(record("no", sample_id="f/9") | {field: "HERE"})
        lines.append(line.replace('"HERE"', written).encode() + b"\n")

    return change


@pytest.mark.parametrize(
    ("spoil", "line", "message", "left"),
    [
        (torn, 3, "is the line cut off?", 2),
        (torn_within_a_character, 3, "is the line cut off?", 2),
        (twice, 4, "completion 0 of sample f/1 appears twice; the first is used", 3),
        (another_answer_for_the_same, 4, "completion 0 of sample f/1 appears twice; the first is used", 3),
        (a_list, 4, "expected a JSON object", 3),
        (deep, 4, "not valid JSON", 3),
        (changed(answer=...), 4, "field 'answer' is missing; expected text", 3),
        (changed(answer=7), 4, "field 'answer' is 7; expected text", 3),
        (changed(scores=[]), 4, "field 'scores' is []; expected an object with a number or null for each name", 3),
        (changed(scores={"judge": "1"}), 4, """field 'scores' is {"judge": "1"}; expected an object with """, 3),
        (
            changed(scores={"judge": 85, "exact_match": 1.0}),
            4,
            """field 'scores' is {"judge": 85, "exact_match": 1.0}; """
            "expected an object with a number or null for each name, at most 1e+100, and from 0 to 1 for judge and "
            "exact_match",
            3,
        ),
        (changed(scores={"judge": -0.1}), 4, "from 0 to 1 for judge", 3),
        (changed(scores={"exact_match": 1.5}), 4, "from 0 to 1 for judge", 3),
        (number_in("scores", '{"judge": NaN}'), 4, "field 'scores' is {\"judge\": NaN}", 3),
        (number_in("scores", '{"mine": 1e999}'), 4, "field 'scores' is {\"mine\": Infinity}", 3),
        (number_in("scores", '{"mine": 1' + "0" * 400 + "}"), 4, "field 'scores' is {\"mine\": 1000", 3),
        (changed(scores={"mine": 1.7e308}), 4, "field 'scores' is {\"mine\": 1.7e+308}", 3),
        (number_in("num_tokens", "1" + "0" * 400), 4, "field 'num_tokens' is 1000", 3),
        (number_in("num_tokens", "9" * 5000), 4, "field 'num_tokens' is Infinity; expected a whole number", 3),
        (
            number_in("reference_boxes", "[[1, 2, 3, 1" + "0" * 400 + "]]"),
            4,
            "field 'reference_boxes' is [[1, 2, 3, 1",
            3,
        ),
        (number_in("answer", "[" * 900 + "]" * 900), 4, "field 'answer' is [[[[", 3),
        (changed(num_tokens="3"), 4, "field 'num_tokens' is \"3\"; expected a whole number", 3),
        (changed(completion_index=True), 4, "field 'completion_index' is true; expected a whole number", 3),
        (changed(boxes=[{"pixels": [1, 2, 3]}]), 4, "field 'boxes' is [{", 3),
        (changed(reference_boxes=[[1, 2, 3]]), 4, "field 'reference_boxes' is [[1, 2, 3]]; expected a list of ", 3),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_left_out(
    tmp_path: Path, spoil: Callable[[list[bytes]], None], line: int, message: str, left: int
) -> None:
    lines = [as_line(record(grounded(), sample_id=f"f/{number}")).encode() for number in range(3)]
    spoil(lines)
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"".join(lines))
    ones, problems = read_predictions(path)
    (problem,) = problems
    assert str(problem).startswith(f"{path}:{line}: ")
    assert message in str(problem)
    assert [one["sample_id"] for one in ones] == [f"f/{number}" for number in range(left)]
    assert all(one["text"] == grounded() for one in ones)
    assert summary(ones)["overall"]["samples"] == left


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(f"\n{as_line(record('no'))}\n   \n")
    ones, problems = read_predictions(tmp_path / "p.jsonl")
    assert (len(ones), problems) == (1, [])


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: cannot be read \(No such file"):
        read_predictions(tmp_path / "nowhere")


def test_lines_are_pure_ascii() -> None:
    one: Prediction = record("猫\u2028")
    assert as_line(one).isascii()
    assert json.loads(as_line(one)) == one


def test_boxes_of_huge_integers_have_metrics(tmp_path: Path) -> None:
    one = record("no") | {"reference_boxes": [[0, 0, 10**300, 10**300]]}
    one["boxes"] = [{"pixels": [0, 0, 10**250, 10**300], "valid": False}]
    write_predictions(tmp_path / "p.jsonl", [one])
    ones, problems = read_predictions(tmp_path / "p.jsonl")
    assert problems == []
    assert summary(ones)["overall"]["giou"] == -1.0  # their areas are not finite


def test_an_array_of_predictions_is_one_error_about_the_file(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps([record("no")], indent=1))
    with pytest.raises(DataError, match=r"p\.jsonl: the file is one JSON array; expected JSON Lines"):
        read_predictions(tmp_path / "p.jsonl")
