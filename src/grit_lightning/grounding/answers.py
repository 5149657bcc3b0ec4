"""Normalisation of answers, so that different spellings of the same answer compare as equal."""

from __future__ import annotations

import re
import unicodedata

import regex  # type: ignore[import-untyped]

_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = (
    {"zero": 0}
    | {word: i for i, word in enumerate((*_UNITS, *_TEENS), start=1)}
    | {word: 10 * i for i, word in enumerate(_TENS, start=2)}
)
_SYNONYMS = {"&": "and", "percent": "%"}

# An article stands directly before a word. "a" may also be the choice A: before a single letter or a number, and beside
# the words below.
_ARTICLE = regex.compile(
    r"""(?<![\p{L}\p{M}\p{N}'_-])
        (?: (?:the|an) (?=\ ["'“‘]?[\p{L}\p{N}])
          | (?<!\b(?:option|choice|answer|letter|type|group|class|grade|plan|team|panel|figure|point|vitamin)\ )
            a (?=\ ["'“‘]?[\p{L}\p{M}]{2})
              (?!\ (?:and|or|nor|but|not|vs|versus|is|are|was|were|has|can|will|does|because)\b) )""",
    regex.VERBOSE,
)
_TOKEN = regex.compile(
    r"""(?<=[0-9)])\s*+[-+/]\s*+(?=[0-9.(])                 # an operator or a range: 5 - 6, 1/2
      | (?<=[0-9]):(?=[0-9])                               # 12:30
      | (?<![\p{L}\p{M}\p{N}_.)+-]) - (?=\p{Sc}\s?[0-9.])  # -$5
      # A number (sign, thousands commas, decimals) that no letter follows:
      | (?:(?<![\p{L}\p{M}\p{N}_.)+-])[-+])?
        (?: [0-9]+ (?:,[0-9]{3}(?![0-9]))* (?:\.[0-9]+)? | (?<![\p{L}\p{M}\p{N}_])\.[0-9]+ ) (?![\p{L}\p{M}\p{N}_])
      | [\p{L}\p{M}\p{N}]+ (?:'[\p{L}\p{M}\p{N}]+)*        # a word with inner apostrophes
      | [[\p{Sm}\p{Sc}\p{So}^%‰&\#@*§]--[©®℠™]]            # a symbol
    """,
    regex.VERBOSE | regex.V1,
)
_NUMBER = re.compile(r"[-+]?[0-9.,]+")
_BOLD = re.compile(r"(?<![0-9])\*{2,}|\*{2,}(?![0-9])")  # Markdown's, not the power of 2**3

_SAME_CHARACTERS = str.maketrans(
    dict.fromkeys("’‘ʼ", "'")
    | dict.fromkeys("−–‐‑", "-")
    # The full-width forms of ASCII characters except letters.
    | {code + 0xFEE0: code for code in range(0x21, 0x7F) if not chr(code).isalpha()}
)
_INVISIBLE = regex.compile(r"[\p{Cf}\uFE00-\uFE0F]")
_OTHER_DIGIT = regex.compile(r"[\p{Nd}--[0-9]]", regex.V1)


def normalise(text: str) -> str:
    """Return the answer folded for comparison: tokens in lower case, joined by single spaces.

    - Numbers, also as words or in the digits of another script, become plain digits: ``"Two"``, ``"2.0"`` → ``"2"``.
    - Articles are dropped only directly before a word. ``"a"`` stays where it may be the choice A: ``"(A)"`` → ``"a"``.
    - Punctuation is dropped, symbols are kept: ``"C++"`` → ``"c + +"``, ``"$5"`` → ``"$ 5"``, ``"-5"`` → ``"-5"``. Text
      that consists of punctuation alone keeps it.
    - Letters keep their marks in every script. They are compared after Unicode's canonical composition (NFC), which
      unites ``é`` and ``e`` + accent, but keeps ``ﬁ`` and ``fi`` apart.
    """
    folded = _fold(text)
    tokens = [token.strip().replace("'", "") for token in _TOKEN.findall(_ARTICLE.sub(" ", folded))]
    return " ".join(_digits(tokens)) or folded or " ".join(text.split())


def as_count(text: str) -> int | None:
    """Return the non-negative whole number that the text denotes (``"3"``, ``"three"``, ``"3.0"``), or ``None``."""
    number = normalise(text)
    # Nine digits suffice for any count; int() raises on numbers of more than 4300 digits.
    return int(number) if re.fullmatch(r"[0-9]{1,9}", number) else None


def _fold(text: str) -> str:
    """Return the text in NFC and lower case, with one form of each quote, dash, digit and space, without emphasis."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).translate(_SAME_CHARACTERS)
    text = _BOLD.sub("", _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text))
    text = " ".join(text.split())
    if len(text) > 2 and text[0] == text[-1] == "*":  # Markdown's italics
        text = text[1:-1].strip()
    return unicodedata.normalize("NFC", text.lower())


def _digits(tokens: list[str]) -> list[str]:
    out: list[str] = []
    previous = ""
    for token in tokens:
        value = _NUMBER_WORDS.get(token)
        if value is not None and token in _UNITS and previous in _TENS:  # twenty-one
            out[-1] = str(int(out[-1]) + value)
        elif token == "cent" and previous == "per":
            out[-1] = "%"
        elif value is not None:
            out.append(str(value))
        else:
            out.append(_decimal(token) if _NUMBER.fullmatch(token) else _SYNONYMS.get(token, token))
        previous = token
    return out


def _decimal(number: str) -> str:
    """Return the shortest form of a decimal number, for example ``"-1000.5"`` for ``"-01,000.50"``.

    It works on the string, because int() raises on more than 4300 digits.
    """
    whole, _, fraction = number.lstrip("+-").replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    magnitude = f"{whole}.{fraction}" if fraction else whole
    return f"-{magnitude}" if number.startswith("-") and magnitude != "0" else magnitude
