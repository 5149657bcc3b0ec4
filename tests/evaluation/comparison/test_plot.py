"""Tests of the comparison plot, which read values from the figure before it is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from grit_lightning.evaluation.comparison import plot
from grit_lightning.evaluation.comparison.differences import EvaluationComparison, compare_columns
from grit_lightning.evaluation.comparison.plot import plot_comparison, rows_of
from grit_lightning.evaluation.comparison.sources import Column
from grit_lightning.model.backbones.prompts import known_prompts
from support.compared import SETTINGS, answers

TALLYQA = {f"tallyqa_val/{line}": float(line % 3 > 0) for line in range(1, 13)}
VSR = {f"vsr_val/{line}": float(line % 2) for line in range(1, 9)}


def comparison(settings: dict | None = None) -> EvaluationComparison:
    first = answers(VSR) + answers(TALLYQA, dataset="tallyqa")
    second = answers(dict.fromkeys(VSR, 1.0)) + answers(dict.fromkeys(TALLYQA, 0.0), dataset="tallyqa")
    columns = [
        Column(name, Path(name), {**SETTINGS, **(settings or {})}, ones, finished=True)
        for name, ones in (("_first", first), ("second", second))
    ]
    return compare_columns(columns, resamples=200)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved."""
    saved: list[Figure] = []
    save = plot.save_figure

    def noting(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(plot, "save_figure", noting)
    return saved


def points(axes: Axes) -> dict[str, list[float]]:
    """Return the drawn values of each run, row by row."""
    return {str(line.get_label()): list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"}


def bars(axes: Axes) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    return [tuple(line.get_xdata()) for line in lines if line.get_linewidth() == 2]


def test_the_plot_shows_values_and_paired_differences(tmp_path: Path, drawn: list[Figure]) -> None:
    found = comparison()
    plot_comparison(tmp_path / "comparison.png", found)
    values, changes = drawn[0].axes
    titles = [label.get_text() for label in values.get_yticklabels()]
    assert titles[:4] == ["accuracy", "accuracy, tallyqa", "accuracy, vsr", "accuracy, macro"]
    assert points(values)[" _first"][:4] == pytest.approx([0.6, 8 / 12, 0.5, 7 / 12])
    assert points(values)["second"][:4] == pytest.approx([0.4, 0.0, 1.0, 0.5])
    assert list(points(changes)) == ["second"]
    assert points(changes)["second"][:4] == pytest.approx([-0.2, -8 / 12, 0.5, -1 / 12])
    shown = found.pairs[0].differences
    expected = [shown[row.dataset][row.metric].interval for row in rows_of(found)]
    assert bars(changes) == [one for one in expected if one is not None]
    low, high = changes.get_xlim()
    assert low < min(end for bar in bars(changes) for end in bar)
    assert high > max(end for bar in bars(changes) for end in bar)
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == [" _first", "second"]
    with Image.open(tmp_path / "comparison.png") as image:
        assert image.format == "PNG"


def test_runs_lie_beside_each_other_within_a_row(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_comparison(tmp_path / "comparison.png", comparison())
    first, second = (line.get_ydata() for line in drawn[0].axes[0].lines if line.get_marker() == "o")
    assert first[0] < 0 < second[0] < 0.5
    assert second[0] - first[0] == pytest.approx(0.35)


def test_a_published_figure_is_drawn_in_the_row_of_its_metric(tmp_path: Path, drawn: list[Figure]) -> None:
    protocol = {
        "judge": "gpt-4o, prompt 0a1b",
        "weights": {"checkpoint": "Qwen/Qwen2.5-VL-3B-Instruct"},
        "prompt": {"version": known_prompts()["plain"]},
    }
    plot_comparison(tmp_path / "comparison.png", comparison(protocol))
    plot_comparison(tmp_path / "comparison.png", comparison())
    with_it, without = (figure.axes[0] for figure in drawn)
    (mark,) = [line for line in with_it.lines if line.get_marker() == "D"]
    labels = [label.get_text() for label in with_it.get_yticklabels()]
    rows = ["accuracy, binarised, vsr", "accuracy, vsr", "accuracy, tallyqa"]
    expected = set(zip([0.663, 0.495, 0.408], map(labels.index, rows), strict=True))
    assert set(zip(mark.get_xdata(), mark.get_ydata(), strict=True)) == expected
    assert [line for line in without.lines if line.get_marker() == "D"] == []
