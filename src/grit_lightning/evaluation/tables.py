"""Metrics for people: tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grit_lightning.evaluation.intervals import Difference, Interval, Intervals
from grit_lightning.evaluation.metrics import MACRO, OVERALL, Metrics
from grit_lightning.system.tables import text_table

TITLES = {
    "accuracy": "accuracy",
    "accuracy_binarised": "accuracy, binarised",
    "exact_match": "exact match",
    "pass_at_k": "pass@k",
    "majority_vote": "majority vote",
    "answer_entropy": "answer entropy, nats",
    "grounding_iou": "grounding IoU",
    "matched_iou": "matched IoU",
    "union_iou": "union IoU",
    "giou": "GIoU",
    "precision": "precision at 0.5",
    "recall": "recall at 0.5",
    "grounded_format": "grounded format",
    "box_validity": "valid boxes",
    "count_consistency": "boxes = count",
    "tokens": "completion tokens",
    "truncated": "truncated share",
    "unscored": "unscored",
    "samples": "samples",
}
"""Of the metrics, in the order of the tables; further scores go by their names."""

BRIEF = ("accuracy", "grounding_iou", "grounded_format", "count_consistency", "tokens", "truncated", "unscored")
"""Metrics that a training is judged by."""

_SILENT = ("unscored",)
"""Rows that say something only where they are not 0."""


def overview(of_datasets: Mapping[str, Metrics], of_intervals: Mapping[str, Intervals]) -> str:
    """A table of all metrics: over all samples, with intervals, then a column for each dataset and their mean."""
    columns = [name for name in of_datasets if name != OVERALL]
    if len(columns) == 1:
        columns = []  # the same figures again
    found = of_intervals.get(OVERALL, {})
    rows = {}
    for name, title in titles(of_datasets[OVERALL]).items():
        values = [of_datasets[column].get(name) for column in (OVERALL, *columns)]
        if not _is_shown(name, values):
            continue
        first, *others = [number(value, name) for value in values]
        rows[title] = [first, interval(found.get(name)), *others]
    return text_table([OVERALL, "95 %", *columns], rows)


def comparison_table(
    columns: Mapping[str, Mapping[str, Metrics]],
    differences: Mapping[str, Mapping[str, Difference]],
    names: Sequence[str],
) -> str:
    """A table of summaries side by side, accuracy by dataset too.

    Args:
        columns: summaries, by what they are of.
        differences: of the same names but the first, from the first on the same samples.
        names: the metrics to show.
    """
    return text_table(*comparison_cells(columns, differences, names))


def comparison_cells(
    columns: Mapping[str, Mapping[str, Metrics]],
    differences: Mapping[str, Mapping[str, Difference]],
    names: Sequence[str],
    *,
    of_intervals: Mapping[str, Mapping[str, Intervals]] | None = None,
    of_datasets: Mapping[str, Mapping[str, Mapping[str, Difference]]] | None = None,
) -> tuple[list[str], dict[str, list[str]]]:
    """Header and rows of :func:`comparison_table`.

    Args:
        columns: as above.
        differences: as above.
        names: as above.
        of_intervals: of the values, by column and dataset, to stand behind them.
        of_datasets: differences by column and dataset, for the rows of the datasets.
    """
    datasets = sorted(
        {name for column in columns.values() for name in column} - {OVERALL}, key=lambda one: (one == MACRO, one)
    )
    if len(datasets) == 1:
        datasets = []

    def cells(name: str, dataset: str) -> list[str]:
        ends = {column: found.get(dataset, {}).get(name) for column, found in (of_intervals or {}).items()}
        values = [
            _with_interval(of.get(dataset, {}).get(name), ends.get(column), name) for column, of in columns.items()
        ]
        by_dataset = of_datasets or {column: {OVERALL: found} for column, found in differences.items()}
        changes = [by_dataset[column].get(dataset, {}).get(name) for column in differences]
        return values + ["" if one is None else difference(one) for one in changes]

    rows: dict[str, list[str]] = {}
    for name in (*names, "samples"):
        if _is_shown(name, [column[OVERALL].get(name) for column in columns.values()]):
            rows[TITLES.get(name, name)] = cells(name, OVERALL)
            if name == "accuracy":
                rows |= {f"  {dataset}": cells(name, dataset) for dataset in datasets}
    header = [*columns, *(f"{name} - {next(iter(columns))}" for name in differences)]
    return header, rows


def titles(metrics: Metrics) -> dict[str, str]:
    """The title of each metric that is there, in the order of the tables."""
    names = [name for name in TITLES if name in metrics]
    more = [name for name in metrics if name not in TITLES]
    counts = [name for name in ("unscored", "samples") if name in names]
    names = [name for name in names if name not in counts]
    return {name: TITLES.get(name, name) for name in (*names, *more, *counts)}


def number(value: float | None, name: str = "") -> str:
    """A metric's value; a dash where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(value: Interval | None) -> str:
    """Such as ``0.712 to 0.785``; empty where there is none."""
    return "" if value is None else f"{number(value.low)} to {number(value.high)}"


def difference(value: Difference) -> str:
    """Such as ``+0.104 (+0.061 to +0.146)``; a dash where no sample has both."""
    if value.mean is None:
        return "-"
    ends = "" if value.interval is None else f" ({_signed(value.interval.low)} to {_signed(value.interval.high)})"
    return f"{_signed(value.mean)}{ends}"


def _with_interval(value: float | None, ends: Interval | None, name: str) -> str:
    return number(value, name) + (f" ({interval(ends)})" if ends else "")


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) < 10 else f"{value:+.1f}"


def _is_shown(name: str, values: Sequence[float | None]) -> bool:
    return any(values) if name in _SILENT else any(value is not None for value in values)
