"""The page about a run, and that about an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from grit_lightning.evaluation.intervals import differences
from grit_lightning.evaluation.metrics import sample_values, summary
from grit_lightning.evaluation.predictions import Prediction, read_predictions
from grit_lightning.evaluation.tables import BRIEF, comparison_cells
from grit_lightning.report.answers import answers_part
from grit_lightning.report.curves import curves
from grit_lightning.report.history import History, read_history
from grit_lightning.report.page import html
from grit_lightning.report.pictures import Pictures
from grit_lightning.report.rollouts import rollouts_part
from grit_lightning.runs.manifest import read_manifest
from grit_lightning.runs.results import read_results
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.runs.run_folder import RunFolder


def run_page(run: RunFolder, *, resamples: int) -> str:
    """Return the page about a run: summary, held-out table, curves, answers before and after, rollouts.

    Args:
        run: the run.
        resamples: number of bootstrap resamples of the intervals.

    Raises:
        DataError: a file of the run cannot be read.
    """
    pictures = Pictures()
    manifest = read_manifest(run.manifest_file)
    history = read_history(run)
    answers = {
        when: read_predictions(file)[0]
        for when, file in (("before", run.before_file), ("after", run.after_file))
        if file.is_file()
    }
    content = _answers(answers, pictures, resamples) | rollouts_part(RolloutStore(run.rollouts), pictures)
    content |= {"facts": _facts(run, manifest, history), "curves": curves({"": history})}
    return html(
        title=run.path.name,
        subtitle=f"a run of grit_lightning, started {manifest.get('started', '')}",
        pictures=pictures,
        content=content,
    )


def evaluation_page(file: Path, predictions: Sequence[Prediction], *, resamples: int) -> str:
    """Return the page about predictions: table of metrics, and answers evenly spaced in the data."""
    pictures = Pictures()
    content = _answers({"answers": list(predictions)}, pictures, resamples)
    return html(
        title=file.parent.name if file.name == "predictions.jsonl" else file.name,
        subtitle="an evaluation of grit_lightning",
        pictures=pictures,
        content=content,
    )


def _facts(run: RunFolder, manifest: Mapping[str, Any], history: History) -> list[tuple[str, str]]:
    overrides = " ".join(manifest["overrides"])
    packages = manifest.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    config = OmegaConf.load(run.config_file) if run.config_file.is_file() else OmegaConf.create()
    model = OmegaConf.select(config, "model.checkpoint") or ""
    data = OmegaConf.to_container(OmegaConf.create({"train": OmegaConf.select(config, "data.train")}))
    results = read_results(run) or {}
    facts = [
        ("command", f"python -m grit_lightning {overrides}".strip()),
        ("model", str(model)),
        ("data", json.dumps(data["train"], ensure_ascii=False) if isinstance(data, dict) else ""),
        ("steps", str(results.get("step", "not finished"))),
        ("time of the steps", _time(history)),
        ("peak memory", _peak(history)),
        ("machine", f"{manifest.get('platform', '')}, {manifest.get('cpu_count', '')} CPUs"),
        ("Python", str(manifest.get("python", ""))),
        ("versions", versions),
        ("folder", str(run.path)),
    ]  # fmt: skip
    return [(name, value) for name, value in facts if value]


def _time(history: History) -> str:
    seconds = [value for _, value in history.get("time/step", [])]
    return f"{sum(seconds):.4g} s, {sum(seconds) / len(seconds):.3g} s each" if seconds else ""


def _peak(history: History) -> str:
    peaks = [value for _, value in history.get("system/peak_memory_gib", [])]
    return f"{max(peaks):.3g} GiB" if peaks else ""


def _answers(answers: Mapping[str, Sequence[Prediction]], pictures: Pictures, resamples: int) -> dict[str, Any]:
    """Return the table of held-out metrics and the answers side by side."""
    answers = {when: ones for when, ones in answers.items() if ones}
    if not answers:
        return {}
    values = {when: sample_values(ones) for when, ones in answers.items()}
    first, *others = values
    changes = {when: differences(values[first], values[when], resamples=resamples) for when in others}
    header, rows = comparison_cells({when: summary(ones) for when, ones in answers.items()}, changes, BRIEF)
    caption = f"{len(next(reversed(values.values())))} questions" + (", with 95 % intervals" if others else "")
    return {"table": {"header": header, "rows": rows, "caption": caption}} | answers_part(answers, pictures)
