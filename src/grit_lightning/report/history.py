"""The metrics of a run over its steps, read from what its loggers wrote."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence

from grit_lightning.report.rows import step_rows
from grit_lightning.runs.run_folder import RunFolder

History = dict[str, list[tuple[int, float]]]
"""Pairs of step and value, in the order of steps, by metric."""

_FORMER = {
    "clip_fraction": "policy/clip_fraction",
    "entropy": "policy/entropy",
    "grad_norm": "policy/grad_norm",
    "kl": "policy/kl",
    "length/mean": "rollout/length/mean",
    "length/std": "rollout/length/std",
    "loss": "policy/loss",
    "lr": "policy/learning_rate",
    "memory/peak_gib": "system/peak_memory_gib",
    "skipped": "policy/skipped",
    "tokens_per_second": "time/tokens_per_second",
    "truncated": "rollout/truncated",
}
"""Names of metrics in runs from before they were grouped, and their names now."""


def read_history(run: RunFolder) -> History:
    """Return the finite values of all metrics: of TensorBoard, of the CSV logger, or else mean rewards of rollouts."""
    found = _of_tensorboard(run) or _of_csv(run) or _of_rollouts(run)
    return {_FORMER.get(name, name): values for name, pairs in found.items() if (values := _finite(pairs))}


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
    events = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0, "images": 1, "tensors": 1})
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
    return {
        "reward/total/mean": [(row["step"], row["reward"]) for row in step_rows(run.path) if row["reward"] is not None]
    }
