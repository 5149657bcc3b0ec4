"""Tests of the text tables and excerpts for the terminal."""

from __future__ import annotations

import pytest

from grit_lightning.system.tables import excerpt, record_table, text_table


def test_a_record_table_is_left_aligned_under_a_ruled_header() -> None:
    rows = [{"file": "a.jsonl", "samples": "10", "note": ""}, {"file": "b", "samples": "1000000", "note": "new"}]
    assert record_table(rows).split("\n") == [
        "file     samples  note",
        "----------------------",
        "a.jsonl  10",
        "b        1000000  new",
    ]


def test_a_text_table_is_right_aligned_with_titles_and_a_minimum_width() -> None:
    table = text_table(["before", "a long header"], {"accuracy": ["0.5", "1"], "IoU": ["0.25", ""]}, width=8)
    assert table.split("\n") == [
        "            before  a long header",
        "accuracy       0.5              1",
        "IoU           0.25",
    ]


def test_a_cell_wider_than_its_header_widens_its_column() -> None:
    assert text_table(["a", "b"], {"x": ["12345", "1"], "y": ["1", "2"]}, width=1).split("\n") == [
        "       a  b",
        "x  12345  1",
        "y      1  2",
    ]


def test_a_text_table_without_rows_is_its_header() -> None:
    assert text_table(["a", "b"], {}, width=3) == "    a    b"


def test_cells_of_tables_are_printable() -> None:
    hostile, shown = "a\x1b[2J\nb", r"a\x1b[2J\nb"
    assert record_table([{hostile: hostile}]).splitlines() == [shown, "-" * len(shown), shown]
    assert text_table([hostile], {hostile: [hostile]}, width=1).count(shown) == 3


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("short", 10, "short"),
        (" one\n two\t", 10, "one two"),
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghijk", 10, "abcde … ghijk"),
        ("abcdefghijk", 3, "ab … k"),
        ("abc", 1, "a … "),
        ("a\0b\x1b[31m\u202e\ud800", 99, "a\\x00b\\x1b[31m\\u202e\\ud800"),
    ],
)
def test_an_excerpt_is_one_short_line_of_printable_characters(text: str, length: int, expected: str) -> None:
    assert excerpt(text, length) == expected
    expected.encode("utf-8")
