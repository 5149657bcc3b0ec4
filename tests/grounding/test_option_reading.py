"""Tests of reading options out of answers, against 200 answers whose reading was written down before the reader."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from string import ascii_uppercase

import pytest

from grit_lightning.grounding.option_reading import named_options

TABLE = Path(__file__).with_name("option_answers.tsv")


def table() -> list[tuple[str, list[str], str, str]]:
    options: dict[str, list[str]] = {}
    rows = []
    for line in TABLE.read_text().splitlines():
        if line.startswith("#   "):
            name, texts = line[4:].split("\t")
            options[name] = texts.split("|")
        elif not line.startswith("#"):
            style, name, answer, reading = line.split("\t")
            rows.append((style, options[name], answer.replace("\\n", "\n"), reading))
    return rows


def reading(answer: str, options: list[str]) -> str:
    found = named_options(answer, options)
    return "?" if len(found) > 1 else "-" if not found else ascii_uppercase[next(iter(found))]


def test_the_table_is_as_large_as_it_says() -> None:
    rows = table()
    assert len(rows) == 200
    assert len({style for style, *_ in rows}) == 12
    assert sum(expected == "?" for *_, expected in rows) == 40


@pytest.mark.parametrize(("style", "options", "answer", "expected"), table(), ids=lambda value: str(value)[:40])
def test_an_answer_is_read_as_a_person_reads_it(style: str, options: list[str], answer: str, expected: str) -> None:
    assert reading(answer, options) == expected


@pytest.mark.parametrize(
    ("options", "answer", "meant"),
    [
        (["red", "blue", "green"], "It is green.", "green"),
        (["red", "dark red", "blue"], "dark red", "dark red"),
        (["a dog", "a cat", "a horse"], "A cat, not a dog", "a cat"),
        (["1", "2", "3"], "There are two.", "2"),
    ],
)
def test_the_order_of_the_options_does_not_move_what_a_text_means(options: list[str], answer: str, meant: str) -> None:
    for order in itertools.permutations(options):
        (found,) = named_options(answer, order)
        assert order[found] == meant


ODD = ["", " ", "()", "....", "\x00", "A" * 2_000, "(" * 2_000, "not " * 500, "B, " * 660, " " * 50_000, "B" * 50_000]


@pytest.mark.parametrize("answer", ODD, ids=lambda text: f"{text[:5]!r} {len(text)}")
def test_odd_answers_are_read_in_a_moment(answer: str) -> None:
    begin = time.process_time()
    named_options(answer, ["red", "blue", "green"])
    assert time.process_time() - begin < 2
