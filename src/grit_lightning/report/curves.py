"""Curves of a run's metrics, read from what its loggers wrote, as SVG paths."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.runs.run_folder import RunFolder

WIDTH, HEIGHT = 300, 90
"""Size of a curve in pixels."""

_FIRST = ("reward/total/mean", "loss", "kl", "entropy", "length/mean", "reward/zero_variance", "truncated", "grad_norm")
"""Curves shown first, in this order; then the other rewards and held-out metrics."""

_HELD_OUT = tuple(f"heldout/overall/{name}" for name in ("accuracy", "grounding_iou", "grounded_format"))
"""Metrics of held-out questions that are shown; the table has all that matter."""

History = dict[str, list[tuple[int, float]]]
"""Pairs of step and value, by metric."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve to draw.

    Attributes:
        name: name of the metric.
        path: the ``d`` of an SVG path in a box of ``WIDTH`` by ``HEIGHT``.
        points: the values with their places, ``x,y,step,value`` separated by spaces, for a reader that follows them.
        low, high: smallest and largest value.
        last: the last value.
    """

    name: str
    path: str
    points: str
    low: float
    high: float
    last: float


def read_history(run: RunFolder) -> History:
    """Return the finite values of all metrics: of TensorBoard, of the CSV logger, or else mean rewards of rollouts."""
    found = _of_tensorboard(run) or _of_csv(run) or _of_rollouts(run)
    return {name: values for name, pairs in found.items() if (values := _finite(pairs))}


def curves(history: Mapping[str, Sequence[tuple[int, float]]]) -> list[Curve]:
    """Return the curves that tell how a training went, the important ones first."""
    rewards = sorted(name for name in history if name.startswith("reward/") and name.endswith("/mean"))
    heldout = [name for name in _HELD_OUT if len(history.get(name, ())) > 1]
    names = [name for name in _FIRST if name in history]
    return [_curve(name, history[name]) for name in dict.fromkeys((*names[:1], *heldout, *names[1:], *rewards))]


def _curve(name: str, pairs: Sequence[tuple[int, float]]) -> Curve:
    steps, values = [step for step, _ in pairs], [value for _, value in pairs]
    low, high = min(values), max(values)
    width, height = (max(steps) - min(steps)) or 1, (high - low) or 1.0
    places = [
        (4 + (WIDTH - 8) * (step - min(steps)) / width, HEIGHT - 4 - (HEIGHT - 8) * (value - low) / height)
        for step, value in pairs
    ]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    points = [f"{x:.1f},{y:.1f},{step},{value:.4g}" for (x, y), (step, value) in zip(places, pairs, strict=True)]
    return Curve(name, path, " ".join(points), low, high, values[-1])


def _finite(pairs: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    last = dict(pairs)  # a resume repeats steps: the later value holds
    return [(step, value) for step, value in sorted(last.items()) if math.isfinite(value)]


def _of_tensorboard(run: RunFolder) -> History:
    if not run.tensorboard.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells when it has read a file
    events = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _of_csv(run: RunFolder) -> History:
    history: History = {}
    for file in sorted(run.metrics.glob("version_*/metrics.csv")) if run.metrics.is_dir() else []:
        with file.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                step = int(float(row.get("step") or 0))
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        history.setdefault(name, []).append((step, float(value)))
    return history


def _of_rollouts(run: RunFolder) -> History:
    store = RolloutStore(run.rollouts)
    history: History = {}
    for step in store.steps():
        rewards = [row["reward"] for row in store.read(step) if row.get("reward") is not None]
        if rewards:
            history.setdefault("reward/total/mean", []).append((step, sum(rewards) / len(rewards)))
    return history
