"""What changed between two scorings of the same completions: agreement, correlation, and the ranking within groups."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from grit_lightning.types import Score

TOTAL = "total"
"""Name of the weighted sum among the components, which none of them may have."""

_CLOSE = 1e-9
"""Totals this close are equal in a ranking: the mean that they are compared with is rounded."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """A completion and what both scorings say of it.

    Attributes:
        step, slot, index: as in ``stored.Stored``.
        sample_id: of its sample.
        old: the stored score; ``None`` where there is none to compare with.
        new: the score under the other reward or judge.
        excerpt: of its text, on one line.
    """

    step: int | None
    slot: int | None
    index: int
    sample_id: str
    old: Score | None
    new: Score
    excerpt: str


@dataclass(frozen=True, slots=True)
class ComponentChange:
    """A component, or the total, under both scorings. ``None``: not defined, as for a component only one of them has.

    Attributes:
        name: of the component, or ``TOTAL``.
        old_scored, old_unscored, old_mean: stored values that are numbers, those that are not, the mean of the former.
        new_scored, new_unscored, new_mean: the same of the new values.
        compared: completions scored in both.
        agreement: share of these with exactly the same value.
        pearson, spearman, kendall: correlations over these (τ_b); ``None`` where one side is constant.
    """

    name: str
    old_scored: int
    old_unscored: int
    old_mean: float | None
    new_scored: int
    new_unscored: int
    new_mean: float | None
    compared: int
    agreement: float | None
    pearson: float | None
    spearman: float | None
    kendall: float | None


@dataclass(frozen=True, slots=True)
class RankingChange:
    """How the ranking within groups changed, over the completions of a group whose totals are scored in both.

    Attributes:
        groups: with at least two such completions.
        best_changed: share of these groups whose best completions, all that share the highest total, are not the same.
        completions: in these groups.
        flipped: share of these whose advantage changed from above 0 to below, or from below to above.
        gained: share whose advantage was 0 and is not any more.
        lost: share whose advantage was not 0 and now is.
    """

    groups: int
    best_changed: float | None
    completions: int
    flipped: float | None
    gained: float | None
    lost: float | None


def component_changes(rows: Sequence[Rescored]) -> list[ComponentChange]:
    """Each component of the new scoring in its order, then those of the stored one alone, then the total."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row.new.components)
    for row in rows:
        if row.old is not None:
            names |= dict.fromkeys(row.old.components)
    return [_change(name, rows) for name in (*names, TOTAL)]


def ranking(rows: Sequence[Rescored]) -> RankingChange:
    """How the order within groups changed; the sign of an advantage is that of total − mean of the group."""
    groups: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.step is None or row.slot is None or row.old is None:
            continue
        if row.old.total is not None and row.new.total is not None:
            groups[row.step, row.slot].append((row.old.total, row.new.total))
    pairs = [tuple(zip(*group, strict=True)) for group in groups.values() if len(group) > 1]
    signs = [sign for old, new in pairs for sign in zip(_signs(old), _signs(new), strict=True)]
    return RankingChange(
        groups=len(pairs),
        best_changed=_mean([_best(old) != _best(new) for old, new in pairs]),
        completions=len(signs),
        flipped=_mean([old * new < 0 for old, new in signs]),
        gained=_mean([old == 0 != new for old, new in signs]),
        lost=_mean([old != 0 == new for old, new in signs]),
    )


def most_changed(rows: Iterable[Rescored], count: int) -> list[Rescored]:
    """The ``count`` completions, scored in both, whose total changed most, the largest change first; none unchanged."""
    changed = [row for row in rows if _difference(row)]
    return sorted(changed, key=lambda row: -abs(_difference(row)))[:count]


def _difference(row: Rescored) -> float:
    if row.old is None or row.old.total is None or row.new.total is None:
        return 0.0
    return row.new.total - row.old.total


def _change(name: str, rows: Sequence[Rescored]) -> ComponentChange:
    old = [value for row in rows for value in _values(row.old, name)]
    new = [value for row in rows for value in _values(row.new, name)]
    old_scored = [value for value in old if value is not None]
    new_scored = [value for value in new if value is not None]
    both = [
        (x, y)
        for row in rows
        for x in _values(row.old, name)
        for y in _values(row.new, name)
        if x is not None and y is not None
    ]
    before, after = np.array([x for x, _ in both]), np.array([y for _, y in both])
    return ComponentChange(
        name=name,
        old_scored=len(old_scored),
        old_unscored=len(old) - len(old_scored),
        old_mean=_mean(old_scored),
        new_scored=len(new_scored),
        new_unscored=len(new) - len(new_scored),
        new_mean=_mean(new_scored),
        compared=len(both),
        agreement=_mean([x == y for x, y in both]),
        pearson=_correlation(stats.pearsonr, before, after),
        spearman=_correlation(stats.spearmanr, before, after),
        kendall=_correlation(stats.kendalltau, before, after),
    )


def _values(score: Score | None, name: str) -> list[float | None]:
    """The one value of a component, or none at all where the scoring does not have it."""
    if score is None:
        return []
    if name == TOTAL:
        return [score.total]
    return [score.components[name]] if name in score.components else []


def _correlation(measure: object, before: np.ndarray, after: np.ndarray) -> float | None:
    if len(before) < 2 or not np.ptp(before) or not np.ptp(after):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        value = float(measure(before, after).statistic)  # type: ignore[operator]
    return value if math.isfinite(value) else None


def _signs(totals: Sequence[float]) -> list[int]:
    mean = math.fsum(totals) / len(totals)
    return [0 if _equal(total, mean) else 1 if total > mean else -1 for total in totals]


def _best(totals: Sequence[float]) -> set[int]:
    highest = max(totals)
    return {i for i, total in enumerate(totals) if _equal(total, highest)}


def _equal(x: float, y: float) -> bool:
    return math.isclose(x, y, rel_tol=_CLOSE, abs_tol=_CLOSE)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
