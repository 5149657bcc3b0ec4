"""Judges: how well an answer agrees with the reference answer to a question.

``ExactMatch`` asks nobody.
"""

from grit_lightning.judge.exact import ExactMatch
from grit_lightning.judge.protocol import AsksAhead, Judge, begin, then

__all__ = ["AsksAhead", "ExactMatch", "Judge", "begin", "then"]
