"""Which of the held-out samples are answered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from grit_lightning.types import Sample


def subset(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """``count`` of the samples, in their order; all where that is ``None`` or too many.

    Drawn by a hash of their ids: always the same ones, whatever else there is, and a smaller subset is part of a larger
    one. Not at equal distances: data has periods, such as one answer after another, which would then be all there is.
    """
    if count is None or count >= len(samples):
        return list(samples)
    ids = sorted((sample.id for sample in samples), key=lambda name: hashlib.sha256(name.encode()).digest())
    drawn = set(ids[:count])
    return [sample for sample in samples if sample.id in drawn]
