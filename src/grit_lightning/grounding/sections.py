"""Parser of the structure of a completion: ``<think> … </think> <rethink> … </rethink> <answer> … </answer>``.

Every function takes time linear in the length of the text, because a policy that optimizes its reward may write any
string. Tags are matched literally, in lower case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grit_lightning.grounding.text_boxes import TextBox, find_boxes

TAGS = ("<think>", "</think>", "<rethink>", "</rethink>", "<answer>", "</answer>")
"""The tags of a well-formed completion, in order."""

_TAG = re.compile("|".join(TAGS))


@dataclass(frozen=True, slots=True)
class Grounded:
    """A completion split into its parts. Section texts are as written, surrounding spaces included.

    Attributes:
        think: text of the think section; ``None`` without a ``<think>``.
        rethink: text of the rethink section; ``None`` without a ``<rethink>``.
        answer: text of the answer section; ``None`` without an ``<answer>``.
        boxes: boxes of the reasoning, in the order written, in the pixels of ``Completion.box_spaces``. The reasoning
            is the text before the first ``<rethink>``, otherwise before the first ``<answer>``, otherwise the whole
            text.
        tags: all tags that occur, in order.
    """

    think: str | None
    rethink: str | None
    answer: str | None
    boxes: tuple[TextBox, ...]
    tags: tuple[str, ...]

    @property
    def well_formed(self) -> bool:
        """True if each of ``TAGS`` occurs exactly once and in that order."""
        return self.tags == TAGS


def parse(text: str) -> Grounded:
    """Split a completion's text into its parts; accept any string and never raise."""
    return Grounded(
        think=section(text, "think", until=("<rethink>", "<answer>")),
        rethink=section(text, "rethink", until=("<answer>",)),
        answer=answer_text(text),
        boxes=find_boxes(_reasoning(text)),
        tags=tuple(_TAG.findall(text)),
    )


def section(text: str, name: str, until: tuple[str, ...] = ()) -> str | None:
    """Return the text from the last closed ``<name>`` to the next ``</name>``; ``None`` without any ``<name>``.

    If no ``<name>`` is closed, as in a completion cut off by the token limit, return the text from the last ``<name>``
    to the first of the tags ``until``, or to the end.
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
    """Return the text of the last closed ``<answer>``, else from the last open one to the end; ``None`` without any."""
    return section(text, "answer")


def before_rethink(text: str) -> str | None:
    """Return the text before the first ``<rethink>``, in which GRIT looks for boxes; ``None`` without that tag."""
    head, tag, _ = text.partition("<rethink>")
    return head if tag else None


def _reasoning(text: str) -> str:
    head = before_rethink(text)
    return text.partition("<answer>")[0] if head is None else head
