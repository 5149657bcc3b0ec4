"""Plots of a training run: reward curves, and example answers with their boxes.

matplotlib is imported only when a plot is drawn (``system.figures``).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grit_lightning.data.images import load_images
from grit_lightning.evaluation.completion_metrics import is_counting, is_right
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.report.drawing import side_by_side
from grit_lightning.runs.records import from_record, placed_boxes
from grit_lightning.system.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXAMPLES = 6
"""Number of samples in the examples plot, one per row."""

_PREDICTED, _REFERENCE, _RIGHT, _WRONG = "#e6007e", "#111111", "#1a7f37", "#c62828"
_LINE_CHARACTERS, _LINES = 50, 12
"""Maximum characters per line and lines of a completion in the examples plot; longer ones end with an ellipsis."""


def plot_rewards(path: Path, history: Sequence[Mapping[str, float]], only_logged: Collection[str] = ()) -> None:
    """Plot the mean total reward, and the mean of each component before weighting, over steps.

    The thin line is the mean of each step, the thick line its moving average.

    Args:
        path: the PNG file to write.
        history: one mapping per step with ``step``, ``total`` and each component by name; NaN where nothing was scored.
        only_logged: components of weight 0, which are not part of the total; their titles say so.
    """
    names = sorted({name for step in history for name in step} - {"step", "total"})
    rows = math.ceil(len(names) / 4)
    figure = new_figure(12, 3.4 + 2.2 * rows)
    grid = figure.add_gridspec(1 + rows, 4, height_ratios=[1.5] + [1] * rows)
    _curve(figure.add_subplot(grid[0, :]), history, "total", "total reward", "#1f4e9c")
    for index, name in enumerate(names):
        title = f"{name} (logged, no reward)" if name in only_logged else name
        _curve(figure.add_subplot(grid[1 + index // 4, index % 4]), history, name, title, "#5a6b7b")
    save_figure(figure, path)


def plot_loss(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Plot the loss of fine-tuning over steps: the thin line is each step's, the thick line its moving average.

    Args:
        path: the PNG file to write.
        history: one mapping per step with ``step`` and ``loss``.
    """
    figure = new_figure(12, 3.4)
    _curve(figure.add_subplot(), history, "loss", "loss (mean negative log-probability per token)", "#1f4e9c")
    save_figure(figure, path)


def plot_examples(path: Path, answers: Mapping[str, Sequence[Prediction]]) -> None:
    """Plot a few samples, one per row, with the completions about them.

    Predicted boxes are solid, reference boxes dashed. The answer is green if the judge scored it as right, else red.

    Args:
        path: the PNG file to write.
        answers: predictions on the same samples in the same order, by column title, such as ``before`` and ``after``.
            Each entry takes two columns: image and text. :func:`chosen` selects the samples.
    """
    indices = chosen(next(iter(answers.values())))
    figure = new_figure(7 * len(answers), 0.5 + 2.75 * len(indices))
    grid = figure.add_gridspec(len(indices), 2 * len(answers), width_ratios=[1, 1.2] * len(answers))
    for column, (when, predictions) in enumerate(answers.items()):
        for row, index in enumerate(indices):
            one = predictions[index]
            _picture(figure.add_subplot(grid[row, 2 * column]), one)
            _words(figure.add_subplot(grid[row, 2 * column + 1]), one, when)
    _legend(figure)
    save_figure(figure, path)


def chosen(predictions: Sequence[Prediction]) -> list[int]:
    """Return the indices of the samples to plot, counting samples first.

    They are the first three counting samples and the first three others. If one kind has fewer than three, more of the
    other kind fill up to six. The choice does not depend on the answers, so the plot cannot be cherry-picked.
    """
    counting = [index for index, one in enumerate(predictions) if is_counting(one)]
    others = [index for index, one in enumerate(predictions) if not is_counting(one)]
    half = EXAMPLES // 2
    first = [*counting[:half], *others[:half], *counting[half:], *others[half:]][:EXAMPLES]
    return [*(index for index in counting if index in first), *(index for index in others if index in first)]


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the moving average over each value and up to ``window`` − 1 values before it.

    NaN values are ignored; the result is NaN where all values of a window are NaN.
    """
    means = []
    for end in range(1, len(values) + 1):
        known = [value for value in values[max(0, end - window) : end] if not math.isnan(value)]
        means.append(sum(known) / len(known) if known else math.nan)
    return means


def _curve(axes: Axes, history: Sequence[Mapping[str, float]], name: str, title: str, colour: str) -> None:
    steps = [step["step"] for step in history]
    values = [step.get(name, math.nan) for step in history]
    single = "." if len(steps) == 1 else ""
    axes.plot(steps, values, color=colour, alpha=0.35, linewidth=1, marker=single)
    axes.plot(steps, smoothed(values, max(1, len(steps) // 10)), color=colour, linewidth=2)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _picture(axes: Axes, one: Prediction) -> None:
    from matplotlib.patches import Rectangle

    sample, _ = from_record(one)
    picture, offsets = side_by_side(load_images(sample))
    axes.imshow(picture)
    axes.set_xlim(-0.5, picture.width - 0.5)
    axes.set_ylim(picture.height - 0.5, -0.5)
    axes.set_anchor("N")
    axes.set_xticks([])
    axes.set_yticks([])
    reference = [(region.box, region.image) for region in sample.regions]
    written = [(box, image) for _, box, image in placed_boxes(one)]
    styles: list[tuple[list[Any], dict[str, Any]]] = [
        (reference, {"edgecolor": _REFERENCE, "linewidth": 1.2, "linestyle": (0, (3, 2))}),
        (written, {"edgecolor": _PREDICTED, "linewidth": 2}),
    ]
    for boxes, style in styles:
        for (x1, y1, x2, y2), image in boxes:
            corner = (x1 + offsets[image] - 0.5, y1 - 0.5)
            axes.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, **style))


def _words(axes: Axes, one: Prediction, when: str) -> None:
    axes.axis("off")
    right = is_right(one)
    verdict = "not judged" if right is None else "right" if right else "wrong"
    question = _two_lines(one["question"])
    answer = textwrap.shorten(one["parsed_answer"], 30, placeholder=" …") or "no answer"
    score = _two_lines(f"{answer} – {verdict} (reference: {one['answer']})")
    # Each text starts below the previous one. Heights are fractions of the axes: 0.075 per line, 0.01 between texts.
    y = 1.0
    lines: list[tuple[str, dict[str, Any]]] = [
        (when, {"fontsize": 8, "color": "#777777"}),
        (question, {"fontsize": 9, "fontweight": "bold"}),
        (score, {"fontsize": 9, "color": _RIGHT if right else _WRONG}),
        (wrapped(one["text"]), {"fontsize": 7.5, "family": "monospace", "color": "#333333"}),
    ]
    for text, style in lines:
        axes.text(0, y, text, va="top", ha="left", transform=axes.transAxes, parse_math=False, **style)
        y -= 0.075 * (1 + text.count("\n")) + 0.01


def _two_lines(text: str) -> str:
    return textwrap.fill(text, 46, max_lines=2, placeholder=" …")


def wrapped(text: str) -> str:
    """Wrap a completion for the examples plot, keeping its line breaks; end it with an ellipsis if it is too long."""
    lines = [part for line in text.strip().splitlines() for part in textwrap.wrap(line, _LINE_CHARACTERS) or [""]]
    return "\n".join(lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "…"])


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[
            Line2D([], [], color=_PREDICTED, linewidth=2, label="box the model wrote"),
            Line2D([], [], color=_REFERENCE, linewidth=1.2, linestyle=(0, (3, 2)), label="reference box"),
        ],
        loc="outside upper right",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
