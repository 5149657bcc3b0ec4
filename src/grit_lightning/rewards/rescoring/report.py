"""Reports of a comparison of two scorings: Markdown, CSV, JSON lines and a terminal table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from grit_lightning.errors import DataError
from grit_lightning.rewards.rescoring.changes import ComponentChange, RankingChange, Rescored
from grit_lightning.system.tables import record_table
from grit_lightning.types import Score


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """The result of rescoring stored completions.

    Attributes:
        what: text that says which completions were scored, and how.
        components: changes of each component, then of the total.
        ranking: changes of the ranking within groups.
        most_changed: completions whose total changed most, the largest change first.
        torn: errors for the torn lines that were left out.
    """

    what: str
    components: Sequence[ComponentChange]
    ranking: RankingChange
    most_changed: Sequence[Rescored]
    torn: Sequence[DataError]


def score_line(row: Rescored) -> str:
    """Return one JSON line with the position of the completion in the rollouts, its old score and its new score.

    The fields of the scores have the same names as in the rollout files.
    """
    return json.dumps(
        {
            "step": row.step,
            "slot": row.slot,
            "sample_id": row.sample_id,
            "completion_index": row.index,
            "old": None if row.old is None else _score_fields(row.old),
            "new": _score_fields(row.new),
        },
        allow_nan=False,
    )


def csv_text(components: Sequence[ComponentChange]) -> str:
    """Return the components as CSV, one line each, in full precision. Undefined values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(ComponentChange)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, components))
    return text.getvalue()


def markdown(comparison: ScoreComparison) -> str:
    """Return the comparison as a Markdown page."""
    rows = [_cells(change) for change in comparison.components]
    header = list(rows[0])
    lines = [
        "# Scores compared",
        "",
        comparison.what,
        "",
        f"| {' | '.join(header)} |",
        f"|---|{'---:|' * (len(header) - 1)}",
        *(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row.values())} |" for row in rows),
        "",
        "Each mean is over the completions that the scoring scored. `agree` (the share of exactly equal values) and",
        "the correlations (Pearson's r, Spearman's ρ, Kendall's τ_b) are over those that both scorings scored.",
        "A dash means that the value is not defined.",
        "",
        *sentences(comparison),
        "",
        "## Most changed",
        "",
        *(_changed_lines(comparison.most_changed) or ["No total changed."]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def terminal(comparison: ScoreComparison) -> str:
    """Return a short form of the comparison for the terminal."""
    shown = ("", "old", "new", "agree", "Spearman", "unscored old", "unscored new")
    rows = [{key: value for key, value in _cells(change).items() if key in shown} for change in comparison.components]
    return "\n".join([comparison.what, "", record_table(rows), "", *sentences(comparison)])


def sentences(comparison: ScoreComparison) -> list[str]:
    """Return one sentence per line on the ranking within groups and on the lines that were left out."""
    ranking = comparison.ranking
    if ranking.groups:
        lines = [
            f"Of {ranking.groups} groups, {_percent(ranking.best_changed)} have a different best completion.",
            f"Of {ranking.completions} advantages, {_percent(ranking.flipped)} changed sign, "
            f"{_percent(ranking.gained)} are no longer 0, {_percent(ranking.lost)} became 0.",
        ]
    else:
        lines = ["No group has two completions that both scorings scored, so there is no ranking to compare."]
    return [*lines, *(f"Left out: {error}" for error in comparison.torn)]


def _score_fields(score: Score) -> dict[str, object]:
    return {"rewards": dict(score.components), "reward": score.total, "reward_errors": dict(score.errors)}


def _cells(change: ComponentChange) -> dict[str, str]:
    return {
        "": change.name,
        "compared": str(change.compared),
        "old": _number(change.old_mean),
        "new": _number(change.new_mean),
        "agree": _number(change.agreement),
        "Pearson": _number(change.pearson),
        "Spearman": _number(change.spearman),
        "Kendall": _number(change.kendall),
        "unscored old": str(change.old_unscored) if change.old_scored or change.old_unscored else "–",
        "unscored new": str(change.new_unscored) if change.new_scored or change.new_unscored else "–",
    }


def _changed_lines(rows: Sequence[Rescored]) -> list[str]:
    lines = []
    for row in rows:
        assert row.old is not None  # a completion without an old score has no change
        lines += [
            f"- step {row.step}, slot {row.slot}, completion {row.index}, sample {row.sample_id}: "
            f"**{_number(row.old.total)} → {_number(row.new.total)}** ({_parts(row.old, row.new)})",
            "",
            f"      {row.excerpt}",
            "",
        ]
    return lines


def _parts(old: Score, new: Score) -> str:
    """Describe the components that are new or whose value changed."""
    parts = []
    for name, value in new.components.items():
        if name not in old.components:
            parts.append(f"{name} {_number(value)}, which is new")
        elif value != old.components[name]:
            parts.append(f"{name} {_number(old.components[name])} → {_number(value)}")
    return ", ".join(parts) or "the weights or the set of components changed"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g} %"
