"""Tests of the JSON Lines reader: sources of lines, and errors about damaged files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from grit_lightning.errors import DataError
from grit_lightning.system.jsonl import TornLineError, is_finite, parse_object, read_lines


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


@pytest.mark.parametrize("content", ["[1]", '[{"a": 1},\n{"a": 2}]', "[\n1", '{\n"a": 1}', '{"a": [\n1]}', "{\n1"])
def test_one_json_document_is_refused_as_a_whole(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"\n{content}\n")
    kind = "array" if content[0] == "[" else "object over several lines"
    with pytest.raises(DataError) as error:
        list(read_lines(file))
    assert str(error.value) == f"{file}: the file is one JSON {kind}; expected JSON Lines, one JSON object per line"


@pytest.mark.parametrize(
    "content", ['{"a": 1}', '{"a": 1}\n{"a": 2}', '{"a": 1', '[1]\n{"a": 1}', '{"a": 1\n{"a": 2}', "{", "["]
)
def test_json_lines_and_torn_lines_are_no_document(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    assert len(list(read_lines(tmp_path / "a.jsonl"))) == content.count("\n") + 1


def test_a_pipe_is_named_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"/pipe: is not a regular file$"):
        list(read_lines(tmp_path / "pipe"))


def test_an_integer_of_any_length_is_read(tmp_path: Path) -> None:
    line = f'{{"a": {"9" * 5000}, "b": -{"9" * 5000}, "c": 1e999, "d": 1{"0" * 400}, "e": 7}}'
    assert parse_object(line, "a:1") == {"a": math.inf, "b": -math.inf, "c": math.inf, "d": 10**400, "e": 7}


def test_finite_means_finite_as_a_float() -> None:
    assert [is_finite(x) for x in (1, 1e308, 10**308, -1.5)] == [True] * 4
    assert [is_finite(x) for x in (10**400, -(10**400), math.inf, math.nan)] == [False] * 4
