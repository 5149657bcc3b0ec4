"""The offline judge, which compares normalised answers."""

from __future__ import annotations

from grit_lightning.grounding.answers import normalise


class ExactMatch:
    """Scores 1 if both answers are equal after ``grounding.normalise``, else 0. Needs no server."""

    name = "exact match"

    def __call__(self, question: str, reference: str, answer: str) -> float:
        """Return 1 or 0 for the two answers; the question is ignored."""
        return float(normalise(reference) == normalise(answer))
