"""Rewards for the output format: the tags around the think, rethink and answer sections."""

from __future__ import annotations

from grit_lightning.grounding.sections import TAGS, section
from grit_lightning.types import Completion, Sample


def answer_format(sample: Sample, completion: Completion, *, present: float, once: float) -> float:
    """Return ``present`` if ``<answer>`` occurs, plus ``once`` if it occurs exactly once."""
    count = completion.text.count("<answer>")
    return present * (count > 0) + once * (count == 1)


def think_rethink(sample: Sample, completion: Completion, *, tag: float, content: float, min_words: int) -> float:
    """Return ``tag`` for each of the four think and rethink tags found in order, plus ``content`` for a think text.

    Each tag is searched in the text after the last occurrence of the previous tag that was found; a missing tag does
    not move the start of the search. ``content`` is given if all four tags are found and the text between ``<think>``
    and ``</think>`` has at least ``min_words`` words.
    """
    rest, found = completion.text, 0
    wanted = TAGS[:4]
    for name in wanted:
        _, separator, after = rest.rpartition(name)
        if separator:
            rest = after
            found += 1
    words = (section(completion.text, "think") or "").split()
    return tag * found + content * (found == len(wanted) and len(words) >= min_words)
