"""The judge that asks nobody."""

from __future__ import annotations

from grit_lightning.grounding.answers import normalise


class ExactMatch:
    """The offline judge: 1 when both answers are the same after ``grounding.normalise``, else 0."""

    name = "exact match"

    def __call__(self, question: str, reference: str, answer: str) -> float:
        """Compare the two answers; the question is not read."""
        return float(normalise(reference) == normalise(answer))
