"""Changes between two scorings of the same completions: agreement, correlation, and the ranking within groups."""

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
"""Name of the weighted sum in a list of components; no component may have this name."""

_CLOSE = 1e-9
"""Relative and absolute tolerance for equal totals in a ranking, because the group mean is subject to rounding."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """The old and the new score of a stored completion.

    Attributes:
        step, slot, index: position of the completion, as in ``stored.Stored``.
        sample_id: id of the sample.
        old: the stored score; ``None`` if there is no stored score.
        new: the score under the new reward or judge.
        excerpt: excerpt of the completion text, on one line.
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
    """Statistics of one component, or of the total, under both scorings.

    A value is ``None`` if it is not defined, for example because only one of the scorings has the component.

    Attributes:
        name: name of the component, or ``TOTAL``.
        old_scored, old_unscored, old_mean: numbers of scored and unscored stored values, and mean of the scored ones.
        new_scored, new_unscored, new_mean: numbers of scored and unscored new values, and mean of the scored ones.
        compared: number of completions that both scorings scored.
        agreement: share of the compared completions with exactly the same value.
        pearson, spearman, kendall: correlations (r, ρ, τ_b) over the compared completions; ``None`` if one side is
            constant.
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
    """Changes of the ranking within groups. Only completions with a total in both scorings are considered.

    Attributes:
        groups: number of groups with at least two such completions.
        best_changed: share of these groups whose set of best completions (all with the highest total) changed.
        completions: number of such completions in these groups.
        flipped: share of these completions whose advantage changed sign.
        gained: share of these completions whose advantage was 0 and is no longer 0.
        lost: share of these completions whose advantage was not 0 and is now 0.
    """

    groups: int
    best_changed: float | None
    completions: int
    flipped: float | None
    gained: float | None
    lost: float | None


def component_changes(rows: Sequence[Rescored]) -> list[ComponentChange]:
    """Return the changes of all components: those of the new scoring, those only in the stored scoring, the total."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row.new.components)
    for row in rows:
        if row.old is not None:
            names |= dict.fromkeys(row.old.components)
    return [_change(name, rows) for name in (*names, TOTAL)]


def ranking(rows: Sequence[Rescored]) -> RankingChange:
    """Return the changes of the ranking within groups. An advantage has the sign of total − group mean."""
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
    """Return up to ``count`` completions whose total changed most, the largest change first.

    Completions without a total in both scorings and completions with an unchanged total are left out.
    """
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
    """Return a list with the value of a component, or an empty list if the scoring does not have the component."""
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
