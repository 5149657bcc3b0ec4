"""Normalisation of answers, so that different spellings of the same answer compare as equal."""

from __future__ import annotations

import re

_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = (
    {"zero": 0}
    | {word: i for i, word in enumerate((*_UNITS, *_TEENS), start=1)}
    | {word: 10 * i for i, word in enumerate(_TENS, start=2)}
)
_ARTICLES = frozenset({"a", "an", "the"})

# A number (sign, thousands commas, decimals) that no word character follows, or a word with inner apostrophes.
_TOKEN = re.compile(
    r"""(?:(?<![\w.])-)?  (?: [0-9]+ (?:,[0-9]{3}(?![0-9]))* (?:\.[0-9]+)? | (?<!\w)\.[0-9]+ )  (?!\w)
      | [^\W_]+ (?:'[^\W_]+)*""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"-?[0-9.,]+")
_SAME_SIGN = str.maketrans({"’": "'", "−": "-"})


def normalise(text: str) -> str:
    """Return the answer in lower case, without punctuation and articles, with numbers as digits and single spaces.

    Examples: ``"The two cats."`` → ``"2 cats"``; ``"2.0"`` → ``"2"``; ``"Twenty-one"`` → ``"21"``. An article is
    dropped only before another word, so the choice ``"(A)"`` becomes ``"a"``. Text that consists of punctuation alone
    keeps it, so that ``"+"`` and ``"-"`` differ.
    """
    lowered = text.translate(_SAME_SIGN).lower()
    tokens = [token.replace("'", "") for token in _TOKEN.findall(lowered)]
    last = len(tokens) - 1
    kept = [token for i, token in enumerate(tokens) if token not in _ARTICLES or i == last]
    return " ".join(_digits(kept)) or " ".join(lowered.split())


def as_count(text: str) -> int | None:
    """Return the non-negative whole number that the text denotes (``"3"``, ``"three"``, ``"3.0"``), or ``None``."""
    number = normalise(text)
    # Nine digits suffice for any count; int() raises on numbers of more than 4300 digits.
    return int(number) if re.fullmatch(r"[0-9]{1,9}", number) else None


def _digits(tokens: list[str]) -> list[str]:
    out: list[str] = []
    previous = ""
    for token in tokens:
        value = _NUMBER_WORDS.get(token)
        if value is not None and token in _UNITS and previous in _TENS:  # twenty-one
            out[-1] = str(int(out[-1]) + value)
        elif value is not None:
            out.append(str(value))
        else:
            out.append(_decimal(token) if _NUMBER.fullmatch(token) else token)
        previous = token
    return out


def _decimal(number: str) -> str:
    """Return the shortest form of a decimal number, for example ``"-1000.5"`` for ``"-01,000.50"``.

    It works on the string, because int() raises on more than 4300 digits.
    """
    whole, _, fraction = number.lstrip("-").replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    magnitude = f"{whole}.{fraction}" if fraction else whole
    return f"-{magnitude}" if number.startswith("-") and magnitude != "0" else magnitude
