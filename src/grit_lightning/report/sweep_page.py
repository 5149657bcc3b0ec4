"""The page about a sweep: a table of its jobs, and their curves over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grit_lightning.report.curves import curves
from grit_lightning.report.history import read_history
from grit_lightning.report.page import html
from grit_lightning.report.pictures import Pictures
from grit_lightning.runs.results import read_results
from grit_lightning.runs.run_folder import RunFolder

_METRICS = (
    "heldout/accuracy", "heldout/grounding_iou", "heldout/grounded_format", "reward/total/mean", "policy/loss",
    "policy/kl", "policy/entropy", "rollout/length/mean", "reward/zero_variance", "time/step",
)  # fmt: skip
"""Columns of the table, if a job has them."""


def sweep_page(folder: Path, jobs: Sequence[tuple[RunFolder, str]], failures: Sequence[Mapping[str, Any]]) -> str:
    """Return the page about a sweep.

    Args:
        folder: the sweep's folder.
        jobs: the runs of its jobs, each with its overrides.
        failures: jobs that failed, with ``job``, ``overrides`` and ``reason``.

    Raises:
        DataError: a file of a run cannot be read.
    """
    results = [read_results(run) for run, _ in jobs]
    values: list[dict[str, float]] = [found["metrics"] if found else {} for found in results]
    metrics = [name for name in _METRICS if any(name in of for of in values)]
    rows = [
        {
            "colour": index,
            "link": _own_page(run),
            "name": run.path.name,
            "cells": [label, str(found["step"]) if found else "unfinished"]
            + [f"{of[name]:.4g}" if name in of else "" for name in metrics],
        }
        for index, ((run, label), found, of) in enumerate(zip(jobs, results, values, strict=True))
    ]
    return html(
        title=folder.name,
        subtitle=f"a sweep of grit_lightning: {len(jobs)} jobs, "
        f"{sum(found is not None for found in results)} of them finished",
        pictures=Pictures(),
        content={
            "jobs": {"header": ["overrides", "steps", *metrics], "rows": rows},
            "curves": curves({f"{run.path.name}: {label}": read_history(run) for run, label in jobs}),
            "notes": [f"job {one['job']} ({' '.join(one['overrides'])}) failed: {one['reason']}" for one in failures],
        },
    )


def _own_page(run: RunFolder) -> str:
    return f"{run.path.name}/{run.report_file.name}" if run.report_file.is_file() else ""
