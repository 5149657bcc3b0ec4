"""Which of the held-out samples are answered."""

from __future__ import annotations

from collections.abc import Sequence

from grit_lightning.types import Sample


def evenly(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """``count`` of the samples, at equal distances in their order; all where that is ``None`` or too many."""
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[index * len(samples) // count] for index in range(count)]
