"""A reproducible subset of the samples to evaluate on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from grit_lightning.types import Sample


def subset(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """Return ``count`` of the samples in their original order; all samples if ``count`` is ``None`` or too large.

    The samples with the smallest hashes of their ids are chosen. The choice is the same in every run and for every
    order of the samples, and a smaller subset is part of a larger one. Every k-th sample would be a worse choice: data
    is often periodic, for example with alternating answers, and such a subset could contain a single kind of answer.
    """
    if count is None or count >= len(samples):
        return list(samples)
    drawn = set(drawn_ids((sample.id for sample in samples), count))
    return [sample for sample in samples if sample.id in drawn]


def drawn_ids(ids: Iterable[str], count: int) -> list[str]:
    """Return ``count`` of the ids, those with the smallest hashes, in the order of their hashes."""
    return sorted(set(ids), key=lambda name: hashlib.sha256(name.encode()).digest())[:count]
