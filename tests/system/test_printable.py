"""Tests of text for the terminal: no control character gets through."""

from __future__ import annotations

import pytest

from grit_lightning.system.printable import printable, printable_lines

HOSTILE = "a\0b\x1b[31m\u202e\ud800\r\n\x9b2J\u2028é猫🐈"


def test_characters_that_are_not_printable_are_escaped() -> None:
    assert printable(HOSTILE) == r"a\x00b\x1b[31m\u202e\ud800\r\n\x9b2J\u2028é猫🐈"
    assert printable(HOSTILE).isprintable()
    printable(HOSTILE).encode("utf-8")


@pytest.mark.parametrize("text", ["", "plain text, 5 × 6 → 30", "猫", "a\\x1b"])
def test_printable_text_is_unchanged(text: str) -> None:
    assert printable(text) == printable_lines(text) == text


def test_line_breaks_can_be_kept() -> None:
    assert printable_lines("a\n\x1bb\r\n\n") == "a\n\\x1bb\\r\n\n"
