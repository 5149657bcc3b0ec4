"""The results of a run that has finished: its last step, metrics of that step, and metrics on held-out samples."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import write_atomic

_OVERALL = "overall"


def write_results(run: RunFolder, step: int, metrics: Mapping[str, float]) -> None:
    """Write ``results.json``. Metrics that are not finite are left out.

    Args:
        run: the run.
        step: number of steps done.
        metrics: metrics of the last step and, from :func:`heldout_metrics`, on held-out samples.
    """
    finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
    write_atomic(run.results_file, json.dumps({"step": step, "metrics": finite}, indent=1) + "\n")


def read_results(run: RunFolder) -> dict[str, Any] | None:
    """Return ``step`` and ``metrics``; ``None`` if the run has not finished.

    Raises:
        DataError: the file holds something else.
    """
    if not run.results_file.is_file():
        return None
    try:
        found = json.loads(run.results_file.read_text(encoding="utf-8"))
        return {"step": int(found["step"]), "metrics": dict(found["metrics"])}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not the results of a run ({error})", str(run.results_file)) from error


def heldout_metrics(run: RunFolder, when: str = "after") -> dict[str, float]:
    """Return the metrics after the last step, or ``before`` the first.

    Their names are ``heldout/DATASET/METRIC``, and ``heldout/METRIC`` for those over all data.

    It is empty for a run that answered no held-out questions.
    """
    if not run.before_and_after_file.is_file():
        return {}
    of_run = json.loads(run.before_and_after_file.read_text(encoding="utf-8")).get(when, {})
    found: dict[str, float] = {}
    for dataset, metrics in of_run.items():
        prefix = "heldout" if dataset == _OVERALL else f"heldout/{dataset}"
        found |= {f"{prefix}/{name}": float(value) for name, value in metrics.items() if value is not None}
    return found
