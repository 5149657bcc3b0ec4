"""Questions of the shapes world."""

from __future__ import annotations

from grit_lightning.data.shapes.questions import Kind, Question, make_question
from grit_lightning.data.shapes.scenes import STANDARD, Difficulty, Split


def questions(
    kind: Kind, count: int, split: Split = "train", seed: int = 0, difficulty: Difficulty = STANDARD
) -> list[Question]:
    return [make_question(seed, index, kind, split, difficulty) for index in range(count)]
