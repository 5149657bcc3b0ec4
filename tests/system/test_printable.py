from __future__ import annotations

import pytest

from grit_lightning.system.printable import printable


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        pytest.param("\x1b[2J\x07", r"\x1b[2J\x07", id="terminal escape sequence"),
        pytest.param("\x9b2J", r"\x9b2J", id="one-byte escape sequence"),
        pytest.param("one\r\ntwo\tthree", r"one\r\ntwo\tthree", id="line break and tab"),
        pytest.param("a\u2028b\u2029c", r"a\u2028b\u2029c", id="Unicode line break"),
        pytest.param("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066", id="bidirectional override"),
        pytest.param("a\u200bb\ufeff", r"a\u200bb\ufeff", id="invisible character"),
        pytest.param("a\u00a0b\u3000c", r"a\xa0b\u3000c", id="unusual space"),
        pytest.param("\ud800", r"\ud800", id="lone surrogate"),
        pytest.param("\x00\x7f", r"\x00\x7f", id="NUL and DEL"),
        pytest.param("\U000e0041", r"\U000e0041", id="tag character"),
    ],
)
def test_characters_that_could_change_the_terminal_are_escaped(text: str, escaped: str) -> None:
    assert printable(text) == escaped
    assert printable(text).isprintable()


@pytest.mark.parametrize("text", ["", "two words", "naïve 日本語 🙂 שלום", r"a\nb", "'\"{}"])
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
