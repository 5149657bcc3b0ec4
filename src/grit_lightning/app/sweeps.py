"""Reports of a ``--multirun`` sweep: each failing job when it fails; at the end all failures and a table of results.

Jobs may run in other processes or on other machines, so they report through files in the sweep's folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from grit_lightning.errors import UserError
from grit_lightning.runs.manifest import read_manifest
from grit_lightning.runs.results import read_results
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import append_line
from grit_lightning.system.jsonl import parse_object, read_lines
from grit_lightning.system.tables import record_table

FAILURES = "failures.jsonl"
"""File in the sweep's folder: one line for each job that failed."""

_SHOWN = ("heldout/accuracy", "heldout/grounding_iou", "reward/total/mean", "policy/loss", "rollout/length/mean")
"""Metrics of the table of results, if a run has them."""


class SweepReport(Callback):
    """Hydra callback that notes where the sweep of this process writes, for :func:`report`."""

    folder: Path | None = None
    begin: int = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the sweep's folder, and how many failures of an earlier sweep it holds."""
        SweepReport.folder = Path(config.hydra.sweep.dir).expanduser().absolute()
        SweepReport.begin = len(failures_of(SweepReport.folder))


def report_failure(reason: str) -> None:
    """Print the failure of this job with its overrides, and record it in the sweep's folder."""
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    print(f"error: job {hydra.job.num} ({' '.join(overrides)}): {reason}", file=sys.stderr, flush=True)
    folder = Path(hydra.sweep.dir).expanduser().absolute()
    entry = {"job": hydra.job.num, "overrides": overrides, "reason": reason}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        append_line(folder / FAILURES, json.dumps(entry))
    except OSError as error:
        print(f"error: {folder / FAILURES} cannot be written: {error.strerror}", file=sys.stderr)


def report() -> int:
    """Print the results and failures of this process's sweep; return the number of failures, 0 without a sweep."""
    folder = SweepReport.folder
    if folder is None:
        return 0
    if table := results_table(folder):
        print(f"\n{table}\n\nsweep folder {folder}", flush=True)
    failures = failures_of(folder)[SweepReport.begin :]
    if failures:
        print(f"\nerror: {len(failures)} {'job' if len(failures) == 1 else 'jobs'} failed:", file=sys.stderr)
    for one in failures:
        print(f"  job {one['job']} ({' '.join(one['overrides'])}): {one['reason']}", file=sys.stderr)
    return len(failures)


def results_table(folder: Path) -> str:
    """Return a table with one row for each finished run in a sweep's folder; empty if there are none."""
    rows: list[dict[str, str]] = []
    for run, label in jobs_of(folder):
        results = read_results(run)
        metrics: Mapping[str, float] = results["metrics"] if results else {}
        cells = {name: f"{metrics[name]:.4g}" if name in metrics else "-" for name in _SHOWN}
        step = str(results["step"]) if results else "unfinished"
        rows.append({"job": run.path.name, "overrides": label, "step": step, **cells})
    shown = [name for name in _SHOWN if any(row[name] != "-" for row in rows)]
    keys = ["job", "overrides", "step", *shown]
    return record_table([{key: row[key] for key in keys} for row in rows]) if rows else ""


def jobs_of(folder: Path) -> list[tuple[RunFolder, str]]:
    """Return the runs in a sweep's folder in the order of their jobs, each with the overrides that tell it apart."""
    found = [RunFolder(path) for path in sorted(folder.iterdir(), key=_number)] if folder.is_dir() else []
    runs = [run for run in found if run.manifest_file.is_file()]
    return list(zip(runs, labels_of(runs), strict=True))


def labels_of(runs: Sequence[RunFolder]) -> list[str]:
    """Return for each run the overrides that not all of the runs have, or its folder's name if it has no others."""
    overrides = []
    for run in runs:
        try:
            overrides.append([one for one in read_manifest(run.manifest_file)["overrides"] if one[:4] != "out="])
        except UserError:  # the run is listed all the same
            overrides.append([])
    common = set.intersection(*map(set, overrides)) if overrides else set()
    own = [" ".join(one for one in given if one not in common) for given in overrides]
    return [label or run.path.name for run, label in zip(runs, own, strict=True)]


def failures_of(folder: Path) -> list[dict[str, Any]]:
    """Return the recorded failures of a sweep's jobs: ``job``, ``overrides`` and ``reason`` of each."""
    file = folder / FAILURES
    return [parse_object(line, source) for source, line in read_lines(file)] if file.is_file() else []


def _number(path: Path) -> tuple[int, str]:
    return (int(path.name), "") if path.name.isdecimal() else (2**31, path.name)
