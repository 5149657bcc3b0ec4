"""Judges: how well an answer agrees with the reference answer to a question."""

from __future__ import annotations

from typing import Protocol

from grit_lightning.grounding.answers import normalise


class Judge(Protocol):
    """What a judge is to the rewards: any callable of this shape."""

    def __call__(self, question: str, reference: str, answer: str) -> float | None:
        """Agreement of ``answer`` with ``reference``, 0 to 1, or ``None`` when it could not be judged."""


class ExactMatch:
    """The offline judge: 1 when both answers are the same after ``grounding.normalise``, else 0."""

    def __call__(self, question: str, reference: str, answer: str) -> float:
        """Compare the two answers; the question is not read."""
        return float(normalise(reference) == normalise(answer))
