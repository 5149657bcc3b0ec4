"""The structure of a completion: ``<think> … </think> <rethink> … </rethink> <answer> … </answer>``.

Every rule here is linear in the length of the text: completions are written by a model that is rewarded for them, so
any string must be expected. Tags are matched literally, in lower case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grit_lightning.grounding.boxes import TextBox, find_boxes

TAGS = ("<think>", "</think>", "<rethink>", "</rethink>", "<answer>", "</answer>")
"""The tags of a well-formed completion, in order."""

_TAG = re.compile("|".join(TAGS))


@dataclass(frozen=True, slots=True)
class Grounded:
    """A completion taken apart.

    Attributes:
        think: text of the think section, or ``None`` without a ``<think>``; as written, surrounding spaces included.
        rethink: the same of the rethink section.
        answer: the same of the answer section.
        boxes: the boxes of the reasoning that precedes ``<rethink>`` (without one: ``<answer>``; without that: all of
            the text), in the order written, in the pixels of ``Completion.box_space``.
        tags: every tag that occurs, in order.
    """

    think: str | None
    rethink: str | None
    answer: str | None
    boxes: tuple[TextBox, ...]
    tags: tuple[str, ...]

    @property
    def well_formed(self) -> bool:
        """Whether each of ``TAGS`` occurs exactly once, and in their order."""
        return self.tags == TAGS


def parse(text: str) -> Grounded:
    """Take a completion's text apart; any string has a structure, so nothing is raised."""
    return Grounded(
        think=section(text, "think", until=("<rethink>", "<answer>")),
        rethink=section(text, "rethink", until=("<answer>",)),
        answer=answer_text(text),
        boxes=find_boxes(_reasoning(text)),
        tags=tuple(_TAG.findall(text)),
    )


def section(text: str, name: str, until: tuple[str, ...] = ()) -> str | None:
    """Text of the last ``<name>`` that is closed, up to its first ``</name>``; ``None`` without any ``<name>``.

    When no ``<name>`` is closed, as in a completion cut off by the token limit, the text after the last one counts, up
    to the first of the tags ``until`` or to the end.
    """
    opening, closing = f"<{name}>", f"</{name}>"
    start = text.rfind(opening, 0, max(text.rfind(closing), 0))
    if start >= 0:
        start += len(opening)
        return text[start : text.find(closing, start)]
    start = text.rfind(opening)
    if start < 0:
        return None
    rest = text[start + len(opening) :]
    return rest[: min((at for tag in until if (at := rest.find(tag)) >= 0), default=len(rest))]


def answer_text(text: str) -> str | None:
    """Text of the last closed ``<answer>``, else of the last open one to the end; ``None`` without an ``<answer>``."""
    return section(text, "answer")


def before_rethink(text: str) -> str | None:
    """The text before the first ``<rethink>``, where GRIT looks for boxes; ``None`` without one."""
    head, tag, _ = text.partition("<rethink>")
    return head if tag else None


def _reasoning(text: str) -> str:
    head = before_rethink(text)
    return text.partition("<answer>")[0] if head is None else head
