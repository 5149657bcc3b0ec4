"""Tests of the JSON Lines reader: sources of lines, and errors about damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest

from grit_lightning.errors import DataError
from grit_lightning.system.jsonl import TornLineError, parse_object, read_lines


def test_lines_are_numbered_from_1_and_blank_ones_are_skipped_but_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n\n  \t\r\n{"b": 2}\r\nlast')
    assert list(read_lines(file)) == [
        (f"{file}:1", b'{"a": 1}\n'),
        (f"{file}:4", b'{"b": 2}\r\n'),
        (f"{file}:5", b"last"),
    ]


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": "x\u2028y\x85z"}\n', encoding="utf-8")
    ((source, line),) = read_lines(file)
    assert source == f"{file}:1"
    assert parse_object(line, source) == {"a": "x\u2028y\x85z"}


@pytest.mark.parametrize("name", ["nowhere.jsonl", "."])
def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    reason = "Is a directory" if name == "." else "No such file or directory"
    with pytest.raises(DataError) as error:
        list(read_lines(path))
    assert str(error.value) == f"{path}: cannot be read ({reason})"


@pytest.mark.parametrize("line", ["{}", b'{"a": {"b": [1, null]}}\n', ' {"a": "\\u732b"} '])
def test_a_json_object_is_parsed_from_text_or_bytes(line: str | bytes) -> None:
    expected = {"{}": {}, b'{"a": {"b": [1, null]}}\n': {"a": {"b": [1, None]}}, ' {"a": "\\u732b"} ': {"a": "猫"}}
    assert parse_object(line, "a.jsonl:1") == expected[line]


@pytest.mark.parametrize("line", ['{"a": 1', b'{"a": "\xe7\x8c', "", "{'a': 1}", '{"a": 1} {"b": 2}', "[" * 100_000])
def test_a_line_that_is_not_valid_json_is_torn(line: str | bytes) -> None:
    with pytest.raises(TornLineError, match=r"^a\.jsonl:3: not valid JSON \(.+\); is the line cut off\?$") as error:
        parse_object(line, "a.jsonl:3")
    assert isinstance(error.value, DataError)
    assert error.value.source == "a.jsonl:3"


@pytest.mark.parametrize("line", ["[1]", "null", '"text"', "3", "true"])
def test_json_that_is_no_object_is_a_data_error_but_not_torn(line: str) -> None:
    with pytest.raises(DataError) as error:
        parse_object(line, "a.jsonl:3")
    assert str(error.value) == "a.jsonl:3: expected a JSON object"
    assert not isinstance(error.value, TornLineError)
