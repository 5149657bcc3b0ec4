"""Text tables of metrics for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grit_lightning.evaluation.intervals import Difference, Interval, Intervals
from grit_lightning.evaluation.metrics import MACRO, OVERALL, Metrics
from grit_lightning.system.tables import text_table

TITLES = {
    "accuracy": "accuracy",
    "accuracy_binarised": "accuracy, binarised",
    "exact_match": "exact match",
    "option_accuracy": "option accuracy",
    "accuracy_with_boxes": "accuracy with boxes",
    "accuracy_without_boxes": "accuracy without boxes",
    "pass_at_k": "pass@k",
    "majority_vote": "majority vote",
    "answer_entropy": "answer entropy, nats",
    "grounding_iou": "grounding IoU",
    "matched_iou": "matched IoU",
    "union_iou": "union IoU",
    "paper_iou": "GRIT's script's IoU",
    "box_accuracy": "Acc@0.5",
    "box_accuracy_mean": "Acc@0.5:0.95",
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
"""Titles by metric name, in the order of the table rows. An additional score has its name as title."""

BRIEF = ("accuracy", "grounding_iou", "grounded_format", "count_consistency", "tokens", "truncated", "unscored")
"""The main metrics, shown before and after training and on a model card."""

_SHOWN_IF_NONZERO = ("unscored",)
"""Metrics whose row is left out if all values are 0."""


def overview(of_datasets: Mapping[str, Metrics], of_intervals: Mapping[str, Intervals]) -> str:
    """Return a table of all metrics.

    The columns are the values over all samples, their intervals, one column per dataset, and the mean over datasets.
    """
    columns = [name for name in of_datasets if name != OVERALL]
    if len(columns) == 1:
        columns = []  # a single dataset has the same values as OVERALL
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
    """Return a table of several summaries side by side, with accuracy also by dataset.

    Args:
        columns: ``metrics.summary`` of each column, by column name.
        differences: paired differences from the first column by metric, for each further column by its name.
        names: names of the metrics to show.
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
    """Return the header and the rows of :func:`comparison_table`.

    Args:
        columns: see :func:`comparison_table`.
        differences: see :func:`comparison_table`.
        names: see :func:`comparison_table`.
        of_intervals: intervals by column, dataset and metric, shown in brackets after the values; ``None`` for none.
        of_datasets: differences by column, dataset and metric, which also fill the rows of the datasets; ``None`` to
            leave those cells empty.
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
    """Return the title of each metric in ``metrics``, in the order of the table rows."""
    names = [name for name in TITLES if name in metrics]
    more = [name for name in metrics if name not in TITLES]
    counts = [name for name in ("unscored", "samples") if name in names]
    names = [name for name in names if name not in counts]
    return {name: TITLES.get(name, name) for name in (*names, *more, *counts)}


def number(value: float | None, name: str = "") -> str:
    """Format a metric value; a dash for ``None``."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(value: Interval | None) -> str:
    """Format an interval, such as ``0.712 to 0.785``; an empty string for ``None``."""
    return "" if value is None else f"{number(value.low)} to {number(value.high)}"


def difference(value: Difference) -> str:
    """Format a difference, such as ``+0.104 (+0.061 to +0.146)``; a dash if no sample has the metric in both."""
    if value.mean is None:
        return "-"
    ends = "" if value.interval is None else f" ({_signed(value.interval.low)} to {_signed(value.interval.high)})"
    return f"{_signed(value.mean)}{ends}"


def _with_interval(value: float | None, ends: Interval | None, name: str) -> str:
    return number(value, name) + (f" ({interval(ends)})" if ends else "")


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) < 10 else f"{value:+.1f}"


def _is_shown(name: str, values: Sequence[float | None]) -> bool:
    return any(values) if name in _SHOWN_IF_NONZERO else any(value is not None for value in values)
