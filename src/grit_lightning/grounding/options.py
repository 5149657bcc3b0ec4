"""Questions with answer options: how they are asked, and which option an answer names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from string import ascii_uppercase

MOST = len(ascii_uppercase)
"""Largest number of options; each has a letter."""

_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")


def with_options(question: str, options: Sequence[str]) -> str:
    """Return the question followed by one line ``(A) …`` for each option; the question alone without options."""
    return "\n".join([question, *(f"({letter}) {one}" for letter, one in zip(ascii_uppercase, options, strict=False))])


def shuffled(options: Sequence[str], *, key: str) -> tuple[str, ...]:
    """Return the options in an order that is a pure function of ``key`` and the options."""
    return tuple(sorted(options, key=lambda option: hashlib.sha256(f"{key}\0{option}".encode()).digest()))


def options_in(question: str) -> tuple[str, ...]:
    """Return the options that :func:`with_options` has written below a question; empty if there are none."""
    start = ("\n" + question).rfind("\n(A) ")
    if start < 0:
        return ()
    found, rest = [], question[start + len("(A) ") :]
    for letter in ascii_uppercase[1:]:
        option, mark, after = rest.partition(f"\n({letter}) ")
        found.append(option)
        if not mark:
            return tuple(found)
        rest = after
    return (*found, rest)


def chosen_option(answer: str, options: Sequence[str]) -> str:
    """Return the text of the option that an answer names by its letter alone (``B``, ``(b)``, ``B.``) or with its text.

    Any other answer is returned as it is. An option that is itself such a letter goes before the letter of another.
    """
    answer = answer.strip()
    if answer in options:
        return answer
    for letter, option in zip(ascii_uppercase, options, strict=False):
        head = answer.removesuffix(option).rstrip() if answer.endswith(option) else answer
        if (match := _LETTER.fullmatch(head)) and match[1].upper() == letter:
            return option
    return answer
