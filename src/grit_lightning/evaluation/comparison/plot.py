"""The plot of an evaluation comparison: metrics of each run with intervals, and differences from the first run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from grit_lightning.evaluation.comparison.differences import EvaluationComparison
from grit_lightning.evaluation.intervals import Interval
from grit_lightning.evaluation.metrics import MACRO, OVERALL
from grit_lightning.evaluation.tables import TITLES
from grit_lightning.system.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = (
    "accuracy",
    "pass_at_k",
    "majority_vote",
    "grounding_iou",
    "matched_iou",
    "precision",
    "recall",
    "grounded_format",
    "count_consistency",
)
"""Metrics to draw if any run has them, each between 0 and 1. :func:`rows_of` adds further rows."""

_COLOURS = ("#5a6b7b", "#1f4e9c", "#e6007e", "#1a7f37", "#c27c0e", "#7b3fa0", "#008b8b", "#8b4513")
_BAND = 0.7
"""Share of a row's height over which the points of the runs are spread."""


class _PlotRow(NamedTuple):
    """One row of the plot: a metric on one dataset, or over all samples."""

    title: str
    dataset: str
    metric: str


def plot_comparison(path: Path, comparison: EvaluationComparison) -> None:
    """Save a PNG with one row per metric: values on the left, paired differences on the right."""
    rows = rows_of(comparison)
    runs = len(comparison.columns)
    figure = new_figure(11.5, 1.3 + len(rows) * max(0.42, 0.16 * runs) + 0.22 * ((runs + 2) // 3))
    grid = figure.add_gridspec(1, 2, width_ratios=[1.15, 1])
    values = figure.add_subplot(grid[0, 0])
    changes = figure.add_subplot(grid[0, 1], sharey=values)
    _values(values, comparison, rows)
    _differences(changes, comparison, rows)
    for axes in (values, changes):
        _tidy(axes, len(rows))
    values.set_yticks(range(len(rows)), [row.title for row in rows])
    changes.tick_params(labelleft=False)
    handles, labels = values.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), frameon=False, fontsize=9)
    save_figure(figure, path)


def rows_of(comparison: EvaluationComparison) -> list[_PlotRow]:
    """Return the rows of the plot from top to bottom.

    A metric has a row if any run has it. Accuracy also has a row for each of several datasets and for their mean.
    Metrics with a published figure follow, if they have no row yet.
    """
    summaries = comparison.metrics.values()
    datasets = sorted({name for of in summaries for name in of} - {OVERALL}, key=lambda name: (name == MACRO, name))
    rows = []
    for metric in METRICS:
        if all(of[OVERALL].get(metric) is None for of in summaries):
            continue
        rows.append(_PlotRow(TITLES[metric], OVERALL, metric))
        if metric == "accuracy" and len(datasets) > 1:
            rows += [_PlotRow(f"{TITLES[metric]}, {name}", name, metric) for name in datasets]
    marked = [_PlotRow(f"{TITLES[metric]}, {name}", name, metric) for name, metric in _published(comparison)]
    drawn = {(row.dataset, row.metric) for row in rows}
    return [*rows, *(row for row in marked if (row.dataset, row.metric) not in drawn)]


def _published(comparison: EvaluationComparison) -> dict[tuple[str, str], float]:
    """Return the published values by dataset and metric."""
    found = [one for of_column in comparison.published.values() for one in of_column]
    return {(one.dataset, one.figure.metric): one.figure.value for one in found}


def _values(axes: Axes, comparison: EvaluationComparison, rows: Sequence[_PlotRow]) -> None:
    for at, column in enumerate(comparison.columns):
        metrics, intervals = comparison.metrics[column.name], comparison.intervals[column.name]
        points = [
            (y, value, intervals.get(row.dataset, {}).get(row.metric))
            for y, row in enumerate(rows)
            if (value := metrics.get(row.dataset, {}).get(row.metric)) is not None
        ]
        _points(axes, points, at, len(comparison.columns), column.name)
    published = _published(comparison)
    marks = [(published[key], y) for y, row in enumerate(rows) if (key := (row.dataset, row.metric)) in published]
    if marks:
        x, y = zip(*marks, strict=True)
        axes.plot(x, y, "D", color="#111111", fillstyle="none", markersize=7, linestyle="none", label="published")
    axes.set_xlim(-0.02, 1.02)
    axes.set_title("value, with 95 % interval", fontsize=10, loc="left")


def _differences(axes: Axes, comparison: EvaluationComparison, rows: Sequence[_PlotRow]) -> None:
    low, high = -0.05, 0.05
    for at, pair in enumerate(comparison.pairs, start=1):
        found = [(y, pair.differences.get(row.dataset, {}).get(row.metric)) for y, row in enumerate(rows)]
        points = [(y, one.mean, one.interval) for y, one in found if one is not None and one.mean is not None]
        _points(axes, points, at, len(comparison.columns), pair.second)
        ends = [end for _, mean, interval in points for end in (mean, *(interval or ()))]
        low, high = min([low, *ends]), max([high, *ends])
    axes.axvline(0, color="#111111", linewidth=1, zorder=1)
    margin = 0.05 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_title(f"difference from {comparison.columns[0].name}, same samples", fontsize=10, loc="left")


def _points(axes: Axes, points: Sequence[tuple[int, float, Interval | None]], at: int, runs: int, name: str) -> None:
    """Draw the points of one run and their intervals, at the vertical offset of that run within each row."""
    offset = _BAND * ((at + 0.5) / runs - 0.5)
    colour = _COLOURS[at % len(_COLOURS)]
    axes.plot(
        [value for _, value, _ in points],
        [y + offset for y, _, _ in points],
        "o",
        color=colour,
        markersize=5,
        linestyle="none",
        label=name if not name.startswith("_") else f" {name}",  # matplotlib hides labels with a leading underscore
        zorder=3,
    )
    for y, _, interval in points:
        if interval is not None:
            axes.plot(interval, (y + offset, y + offset), color=colour, linewidth=2, alpha=0.6, zorder=2)


def _tidy(axes: Axes, rows: int) -> None:
    axes.set_ylim(rows - 0.5, -0.5)
    axes.tick_params(labelsize=8.5, length=0)
    axes.grid(axis="x", alpha=0.25)
    for y in range(0, rows, 2):
        axes.axhspan(y - 0.5, y + 0.5, color="#000000", alpha=0.035, linewidth=0, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
