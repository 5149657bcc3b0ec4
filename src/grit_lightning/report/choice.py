"""Which steps and which held-out samples a page shows, where it cannot show all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grit_lightning.evaluation.completion_metrics import is_right


def evenly_spaced(steps: Sequence[int], count: int) -> list[int]:
    """Return ``count`` of the steps, the first and the last among them, at distances as equal as can be."""
    if len(steps) <= count:
        return list(steps)
    if count <= 1:
        return [steps[-1]]
    last = len(steps) - 1
    return [steps[index] for index in sorted({round(place * last / (count - 1)) for place in range(count)})]


def flips_first(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], count: int
) -> list[str]:
    """Return ids of the samples to show: those that became right, those that became wrong, then typical others.

    Others are taken in turn from those that are right and wrong after training, in the order of the data, so that their
    mixture is not chosen by hand. Without answers from before there are no flips.

    Args:
        before: the first answer to each sample before training, by sample id; may be empty.
        after: the same after training.
        count: number of samples.
    """
    gained: list[str] = []
    lost: list[str] = []
    right: list[str] = []
    wrong: list[str] = []
    for name, one in after.items():
        now, then = is_right(dict(one)), is_right(dict(before[name])) if name in before else None
        if now and then is False:
            gained.append(name)
        elif then and now is False:
            lost.append(name)
        else:
            (right if now else wrong).append(name)
    half = count // 3
    flips = [*_spread(gained, half), *_spread(lost, half)]
    rest = count - len(flips)
    others = [*_spread(right, rest - rest // 2), *_spread(wrong, rest // 2)]
    return [*flips, *others]


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Return ``count`` of the names, evenly spaced in their order."""
    if len(names) <= count:
        return list(names)
    return [names[index * len(names) // count] for index in range(count)]
