"""Tests of the comparison of two scorings: by hand, against plain loops, and against the training's advantages."""

from __future__ import annotations

import math
import random

import pytest
import torch

from grit_lightning.rewards.rescoring.changes import TOTAL, Rescored, component_changes, most_changed, ranking
from grit_lightning.training.objective import advantages
from grit_lightning.types import Score


def row(old, new, step=1, slot=0, index=0):
    """Return a completion with its old and new components, given by name; the name ``total`` is the total."""

    def score(values):
        components = {name: value for name, value in values.items() if name != TOTAL}
        return Score(components, values.get(TOTAL))

    return Rescored(step, slot, index, "cats/1", None if old is None else score(old), score(new), "text")


def by_name(rows):
    return {change.name: change for change in component_changes(rows)}


def pearson(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cov / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def ranks(x):
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def kendall(x, y):
    pairs = [(x[i] - x[j], y[i] - y[j]) for i in range(len(x)) for j in range(i)]
    order = sum(((a > 0) - (a < 0)) * ((b > 0) - (b < 0)) for a, b in pairs)
    return order / math.sqrt(sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs))


def test_means_counts_agreement_and_correlations_by_hand():
    rows = [
        row({"judge": 1.0, TOTAL: 1.0}, {"judge": 1.0, TOTAL: 1.0}),
        row({"judge": 0.0, TOTAL: 0.0}, {"judge": 1.0, TOTAL: 1.0}),
        row({"judge": None, TOTAL: None}, {"judge": 0.5, TOTAL: 0.5}),
        row({"judge": 0.5, TOTAL: 0.5}, {"judge": None, TOTAL: None}),
        row({"judge": 0.0, TOTAL: 0.0}, {"judge": 0.0, TOTAL: 0.0}),
    ]
    judge = by_name(rows)["judge"]
    assert (judge.old_scored, judge.old_unscored, judge.old_mean) == (4, 1, 1.5 / 4)
    assert (judge.new_scored, judge.new_unscored, judge.new_mean) == (4, 1, 2.5 / 4)
    assert (judge.compared, judge.agreement) == (3, 2 / 3)
    for name in ("pearson", "spearman", "kendall"):  # (1, 1), (0, 1), (0, 0)
        assert getattr(judge, name) == pytest.approx(0.5)
    total = by_name(rows)[TOTAL]
    assert total.agreement == judge.agreement
    assert total.old_unscored == 1


def test_correlations_equal_plain_loops_with_ties():
    draw = random.Random(0)
    x = [draw.randrange(6) / 3 for _ in range(60)]
    y = [a + draw.randrange(4) for a in x]
    change = by_name([row({"a": a, TOTAL: b}, {"a": b, TOTAL: a}) for a, b in zip(x, y, strict=True)])["a"]
    assert change.pearson == pytest.approx(pearson(x, y), abs=1e-12)
    assert change.spearman == pytest.approx(pearson(ranks(x), ranks(y)), abs=1e-12)
    assert change.kendall == pytest.approx(kendall(x, y), abs=1e-12)
    assert 0.1 < change.kendall < change.spearman < 0.9


def test_agreement_compares_scores_exactly():
    rows = [row({"a": 0.1 + 0.2, TOTAL: 1.0}, {"a": 0.3, TOTAL: 1.0})]
    assert by_name(rows)["a"].agreement == 0.0


@pytest.mark.parametrize("values", [[(1.0, 1.0)], [(1.0, 0.0), (1.0, 1.0)], [(1.0, 2.0), (0.0, 2.0)]])
def test_one_value_or_a_constant_has_no_correlation(values):
    change = by_name([row({"a": x, TOTAL: x}, {"a": y, TOTAL: y}) for x, y in values])["a"]
    assert (change.pearson, change.spearman, change.kendall) == (None, None, None)


def test_nearly_constant_values_cause_no_warning():
    rows = [row({TOTAL: 1 + 1e-15 * (i % 2)}, {TOTAL: float(i)}) for i in range(9)]
    assert -1 <= by_name(rows)[TOTAL].spearman <= 1


def test_components_of_one_scoring_alone_are_not_compared():
    rows = [row({"gone": 1.0, "kept": None, TOTAL: 1.0}, {"kept": 0.0, "new": 0.5, TOTAL: 0.5})] * 3
    changes = by_name(rows)
    assert list(changes) == ["kept", "new", "gone", TOTAL]
    assert (changes["gone"].compared, changes["gone"].old_scored, changes["gone"].new_scored) == (0, 3, 0)
    assert (changes["gone"].agreement, changes["gone"].new_mean, changes["gone"].new_unscored) == (None, None, 0)
    assert (changes["new"].old_scored, changes["new"].old_unscored, changes["new"].new_mean) == (0, 0, 0.5)
    assert (changes["kept"].old_unscored, changes["kept"].new_scored, changes["kept"].compared) == (3, 3, 0)


def test_predictions_without_stored_scores_are_not_compared():
    rows = [row(None, {"a": 1.0, TOTAL: 1.0}, step=None, slot=None)] * 2
    assert by_name(rows)["a"].compared == 0
    assert by_name(rows)["a"].new_mean == 1.0
    assert ranking(rows).groups == 0
    assert ranking(rows).best_changed is None
    assert most_changed(rows, 5) == []


def group(slot, pairs, step=1):
    return [row({TOTAL: x}, {TOTAL: y}, step, slot, i) for i, (x, y) in enumerate(pairs)]


def test_rank_changes_within_groups_by_hand():
    rows = [
        *group(0, [(1.0, 2.0), (0.0, 1.0)]),  # the same order
        *group(1, [(1.0, 0.0), (0.0, 1.0)]),  # the other one: both advantages change sign
        *group(2, [(0.5, 0.0), (0.5, 1.0)]),  # none was better, now one is
        *group(3, [(0.0, 0.3), (1.0, 0.3)]),  # and the reverse
        *group(0, [(3.0, 0.1), (0.0, 0.1 + 1e-15), (0.0, 0.1)], step=2),  # equal up to rounding
        *group(1, [(3.0, 0.1), (None, 0.9), (0.0, 0.0), (0.0, None)], step=2),  # of the four, two can be compared
        *group(2, [(3.0, 0.1), (1.0, None)], step=2),  # one alone has no rank
    ]
    found = ranking(rows)
    assert found.groups == 6
    assert found.best_changed == 4 / 6
    assert found.completions == 2 * 4 + 3 + 2
    assert (found.flipped, found.gained, found.lost) == (2 / 13, 2 / 13, 5 / 13)


def test_sign_changes_equal_those_of_the_training_advantages():
    draw = random.Random(1)
    old, new = ([[draw.choice([0.0, 0.1, 0.25, 0.5, 1.6]) for _ in range(4)] for _ in range(200)] for _ in range(2))
    rows = [
        one for slot in range(200) for one in group(slot, [*zip(old[slot], new[slot], strict=True)])
    ]  # fmt: skip

    def signs(table):
        values = advantages(torch.tensor(table, dtype=torch.float64), "group")
        return torch.where(values.abs() < 1e-6, 0.0, values.sign()).flatten()

    before, after = signs(old), signs(new)
    found = ranking(rows)
    assert found.completions == 800
    assert found.flipped == pytest.approx((before * after < 0).double().mean().item())
    assert found.gained == pytest.approx(((before == 0) & (after != 0)).double().mean().item())
    assert found.lost == pytest.approx(((before != 0) & (after == 0)).double().mean().item())
    assert min(found.flipped, found.gained, found.lost) > 0.01


def test_the_largest_changes_come_first():
    rows = [
        *group(0, [(1.0, 1.5), (1.0, -1.0), (1.0, 1.0), (None, 5.0), (5.0, None), (0.0, 1.0)]),
        *group(1, [(0.0, 0.5)]),
    ]
    assert [(one.slot, one.index) for one in most_changed(rows, 9)] == [(0, 1), (0, 5), (0, 0), (1, 0)]
    assert [(one.slot, one.index) for one in most_changed(rows, 2)] == [(0, 1), (0, 5)]
    assert most_changed(rows, 0) == []
