"""Which of a question's options a free answer names, by its letter or its text: ``(B) red``, ``The answer is B.``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from grit_lightning.grounding.answers import normalise

_OPEN, _CLOSE = r"[(\[{<\"'“‘]", r"[)\]}>\"'”’]"
_JOINED = r"\s*(?:,|/|&|\bor\b|\band\b)\s*"
_ALONE = re.compile(r"[\s()\[\]{}<>\"'“”‘’.,:;!*-]*([A-Za-z])[\s()\[\]{}<>\"'“”‘’.,:;!*-]*")
_LIST = re.compile(rf"{_OPEN}*[A-Z]{_CLOSE}*(?:(?:{_JOINED})+{_OPEN}*[A-Z]{_CLOSE}*)+[.!]?")
_LEADING = re.compile(rf"(?:{_OPEN}+([A-Za-z]){_CLOSE}+[.:]?|([A-Za-z])(?:[.:)\]]|\s+[-–—](?=\s)))\s*(.*)", re.DOTALL)
_STATED = re.compile(
    r"\b(?:answer|option|choice|choose|pick|select)\b(?:\s+(?:is|was|would\s+be|should\s+be|option|choice|letter))*\s*[:=]?\s*"
    rf"(?:{_OPEN}+\s*([A-Za-z])\s*{_CLOSE}+|([A-Za-z])(?=\s*(?:[.,;:!?/&\n]|$)|\s+(?:or|and|but|because|since)\b))",
    re.IGNORECASE,
)
_STATED_NUMBER = re.compile(r"\b(?:option|choice)\s+#?[0-9]", re.IGNORECASE)
_STANDING = re.compile(r"(?<![\w'’.-])(?:([B-HJ-Z])(?![\w'’+#-])|([AI])(?=\s*(?:[.,;:!?/&\n)]|$)|\s+(?:or|and|but)\b))")
_MARKUP = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\b|\\[()\[\]]|[$`*]|__|(?<=\{)\s+|\s+(?=\})")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_NEGATION = re.compile(
    r"(?:\b(?:not|never|cannot)|\b(?:is|are|was|were|do|does|did|ca|could|would)n['’]?t|\binstead\s+of|\brather\s+than"
    r"|\bunlike)\s+(?:the\s+|an?\s+|option\s+)?[(\"'“]*$",
    re.IGNORECASE,
)
_SPACES = re.compile(r"[^\S\n]+")
_YES_NO = ("yes", "no")

LONGEST_ANSWER = 2000
"""Characters of an answer that is read; in a longer one it cannot be told which option is meant."""


def named_options(answer: str, options: Sequence[str]) -> frozenset[int]:
    """Return the indices of the options that an answer may mean.

    One index: the answer is clear. Several: it cannot be told which of them is meant, as in ``A or B`` or ``(B) green``
    where B is another colour. None: it names no option. What is decided never depends on where an option stands in the
    list or in the answer.

    - A letter counts alone, with marks, before a text, after ``answer``, ``option`` or ``choose``, or standing by
      itself in upper case; ``A`` and ``I`` before a word are an article and a pronoun.
    - An option's text counts where its words stand in the answer after normalisation (:func:`normalise`). The longer
      of two texts that overlap counts: ``dark red`` does not mention ``red``.
    - A statement such as ``the answer is B`` counts more than what is mentioned on the way to it.
    - An option that is named after ``not``, ``instead of`` or ``rather than`` is left out.

    Args:
        answer: the answer, with or without Markdown or LaTeX around it.
        options: texts of the options; the first has the letter A.
    """
    if len(answer) > LONGEST_ANSWER:
        return frozenset(range(len(options)))
    text = _MARKUP.sub("", _SPACES.sub(" ", answer)).replace("{", "(").replace("}", ")").strip()
    equal = frozenset(i for i, option in enumerate(options) if normalise(option) == normalise(text))
    alone = _ALONE.fullmatch(text)
    if equal or (alone and _index(alone[1], options)):
        return equal | (_index(alone[1], options) if alone else frozenset())
    if _STATED_NUMBER.search(text):
        return frozenset(range(len(options)))  # the number of an option, or an option that is a number
    return _stated(text, options) or _leading(text, options) or _mentioned(text, options)


def _stated(text: str, options: Sequence[str]) -> frozenset[int]:
    """Return the options that statements such as ``the answer is B`` name, and those that contradict them."""
    found: set[int] = set()
    for sentence in _SENTENCE.split(text):
        for match in _STATED.finditer(sentence):
            if label := _index(match[1] or match[2], options):
                found |= _agreeing(label, sentence[match.end() :], options)
    return frozenset(found)


def _leading(text: str, options: Sequence[str]) -> frozenset[int]:
    """Return the option of a letter with a mark at the beginning, ``B. …``, and those that what follows names."""
    if (match := _LEADING.match(text)) and (label := _index(match[1] or match[2], options)):
        return _agreeing(label, match[3], options)
    label = _index(text[:1], options) if re.match(r"[A-Z]\s", text) else frozenset()
    same = [index for index in label if normalise(options[index]) == normalise(text[1:])]
    return frozenset(same)


def _agreeing(label: frozenset[int], rest: str, options: Sequence[str]) -> frozenset[int]:
    """Return a label together with the options that the rest of its sentence names, unless these include it."""
    others = _mentioned(rest, options)
    return label if label == others else label | others


def _mentioned(text: str, options: Sequence[str]) -> frozenset[int]:
    """Return the options whose letters or texts stand in a text."""
    if _LIST.fullmatch(text):
        return frozenset(i for letter in re.findall(r"\b[A-Z]\b", text) for i in _index(letter, options))
    letters = {
        index
        for match in _STANDING.finditer(text)
        if not _NEGATION.search(text[: match.start()])
        for index in _index(match[1] or match[2], options)
    }
    return frozenset(letters | {index for part in _SENTENCE.split(text) for index in _texts(part, options)})


def _texts(sentence: str, options: Sequence[str]) -> Iterator[int]:
    """Yield the options whose words stand in a sentence, the longest first, each word used once."""
    words = normalise(sentence).split()
    by_length = sorted(range(len(options)), key=lambda index: -len(normalise(options[index]).split()))
    used: set[int] = set()
    for index in by_length:
        option = normalise(options[index]).split()
        for start in range(len(words) - len(option) + 1):
            places = set(range(start, start + len(option)))
            if words[start : start + len(option)] != option or places & used:
                continue
            if option[0] in _YES_NO and len(option) == 1 and start and words[start - 1] not in ("and", "or"):
                continue  # "there is no dog" does not answer no
            used |= places
            if not _NEGATION.search(" ".join(words[:start]) + " "):
                yield index


def _index(letter: str | None, options: Sequence[str]) -> frozenset[int]:
    """Return the option of a letter; nothing if there is none."""
    index = ascii_uppercase.find(letter.upper()) if letter else -1
    return frozenset([index]) if 0 <= index < len(options) else frozenset()
