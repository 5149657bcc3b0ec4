"""Which steps and which held-out samples a page shows, where it cannot show all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grit_lightning.evaluation.completion_metrics import is_right
from grit_lightning.evaluation.predictions import Prediction


class Chosen(NamedTuple):
    """Held-out samples to show, in this order.

    Attributes:
        names: their ids.
        flips: how many of them became right or wrong; they come first.
        all_flips: how many did so among all samples.
    """

    names: list[str]
    flips: int
    all_flips: int


def evenly_spaced(steps: Sequence[int], count: int) -> list[int]:
    """Return ``count`` of the steps, the first and the last among them, at distances as equal as can be."""
    if len(steps) <= count:
        return list(steps)
    if count <= 1:
        return [steps[-1]]
    last = len(steps) - 1
    return [steps[index] for index in sorted({round(place * last / (count - 1)) for place in range(count)})]


def flips_first(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], *, flips: int, others: int
) -> Chosen:
    """Choose the samples to show: those that became right, those that became wrong, then typical others.

    Others are evenly spaced in the data, and right and wrong in the proportion of all others, so that they are neither
    the first ones nor picked by hand. Without answers from before there are no flips.

    Args:
        before: the first answer to each sample before training, by sample id; may be empty.
        after: the same after training.
        flips: largest number of samples that became right or wrong; of more, evenly spaced ones in both directions.
        others: number of other samples.
    """
    gained: list[str] = []
    lost: list[str] = []
    same: list[str] = []
    for name, one in after.items():
        now, then = is_right(dict(one)), is_right(dict(before[name])) if name in before else None
        kind = gained if now and then is False else lost if then and now is False else same
        kind.append(name)
    every = len(gained) + len(lost)
    if every > flips:
        gained, lost = _spread(gained, flips * len(gained) // every), _spread(lost, flips * len(lost) // every)
    return Chosen([*gained, *lost, *_spread(same, others)], len(gained) + len(lost), every)


def first_of_each(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    """Return the first answer to each sample by the sample's id, in the order of the predictions."""
    found: dict[str, Prediction] = {}
    for one in predictions:
        found.setdefault(one["sample_id"], one)
    return found


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Return ``count`` of the names, evenly spaced in their order."""
    if len(names) <= count:
        return list(names)
    return [names[index * len(names) // count] for index in range(count)]
