"""Curves of metrics over steps as SVG paths: those of one run, or the same metric of several runs over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grit_lightning.report.history import History

WIDTH, HEIGHT = 300, 90
"""Size of a figure in pixels."""

MOST_POINTS = 500
"""Points of a line; of a longer one, evenly spaced points are drawn, the first and the last among them."""

_FIRST = (
    "policy/loss", "policy/kl", "policy/entropy", "rollout/length/mean", "reward/zero_variance", "rollout/truncated",
    "policy/grad_norm",
)  # fmt: skip
"""Figures shown after reward and held-out metrics, in this order; then the other rewards."""

_HELD_OUT = tuple(f"heldout/overall/{name}" for name in ("accuracy", "grounding_iou", "grounded_format"))
"""Metrics of held-out questions that are shown; the table has all that matter."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a figure.

    Attributes:
        label: name of the run; empty if the figure has one line.
        path: the ``d`` of an SVG path in a box of ``WIDTH`` by ``HEIGHT``.
        points: the values with their places, ``x,y,step,value`` separated by spaces, for a reader that follows them.
        last: the last value.
    """

    label: str
    path: str
    points: str
    last: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure to draw.

    Attributes:
        name: name of the metric.
        lines: one line for each run that has the metric, and ``None`` for each that has not, so that a run keeps its
            colour.
        low, high: smallest and largest value.
    """

    name: str
    lines: list[Line | None]
    low: float
    high: float


def curves(histories: Mapping[str, History]) -> list[Curve]:
    """Return the figures that tell how trainings went, the important ones first.

    Args:
        histories: the metrics of each run, by its label.
    """
    every = dict.fromkeys(name for history in histories.values() for name in history)
    rewards = sorted(name for name in every if name.startswith("reward/") and name.endswith("/mean"))
    held_out = [name for name in _HELD_OUT if any(len(history.get(name, ())) > 1 for history in histories.values())]
    names = [name for name in ("reward/total/mean", *held_out, *_FIRST, *rewards) if name in every]
    return [_curve(name, histories) for name in dict.fromkeys(names)]


def _curve(name: str, histories: Mapping[str, History]) -> Curve:
    found = [history.get(name, []) for history in histories.values()]
    steps = [step for pairs in found for step, _ in pairs]
    values = [value for pairs in found for _, value in pairs]
    start, width = min(steps), (max(steps) - min(steps)) or 1
    low, height = min(values), (max(values) - min(values)) or 1.0

    def line(label: str, pairs: Sequence[tuple[int, float]]) -> Line | None:
        if not pairs:
            return None
        drawn = _thinned(pairs)
        places = [
            (4 + (WIDTH - 8) * (step - start) / width, HEIGHT - 4 - (HEIGHT - 8) * (value - low) / height)
            for step, value in drawn
        ]
        points = [f"{x:.1f},{y:.1f},{step},{value:.4g}" for (x, y), (step, value) in zip(places, drawn, strict=True)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        return Line(label, path, " ".join(points), pairs[-1][1])

    labels = histories if len(histories) > 1 else [""]
    return Curve(name, [line(label, pairs) for label, pairs in zip(labels, found, strict=True)], low, max(values))


def _thinned(pairs: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    if len(pairs) <= MOST_POINTS:
        return pairs
    last = len(pairs) - 1
    return [pairs[round(index * last / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]
