"""The page about a run, and that about predictions: what they show, and by which rule where they cannot show all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from grit_lightning.evaluation.intervals import differences
from grit_lightning.evaluation.metrics import sample_values, summary
from grit_lightning.evaluation.predictions import Prediction, read_predictions
from grit_lightning.evaluation.tables import BRIEF, comparison_cells
from grit_lightning.report.choice import evenly_spaced, flips_first
from grit_lightning.report.completions import shown
from grit_lightning.report.curves import curves, read_history
from grit_lightning.report.page import html
from grit_lightning.report.pictures import Pictures
from grit_lightning.runs.manifest import read_manifest
from grit_lightning.runs.records import images_of
from grit_lightning.runs.results import read_results
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.runs.run_folder import RunFolder

MOST_COMPLETIONS = 1500
"""Completions of rollouts on a page; of a longer run, evenly spaced steps are shown, each whole."""

MOST_PAIRS = 60
"""Held-out samples on a page."""

IMAGE_BYTES = 13_000_000
"""Bytes of embedded images on a page, so that it stays below 20 MB."""


def run_page(run: RunFolder, *, resamples: int) -> str:
    """Return the page about a run: summary, held-out table, curves, answers before and after, rollouts.

    Args:
        run: the run.
        resamples: number of bootstrap resamples of the intervals.

    Raises:
        DataError: a file of the run cannot be read.
    """
    pictures = Pictures(IMAGE_BYTES)
    manifest = read_manifest(run.manifest_file)
    answers = {
        when: read_predictions(file)[0]
        for when, file in (("before", run.before_file), ("after", run.after_file))
        if file.is_file()
    }
    content = _answers(answers, pictures, resamples) | _rollouts(RolloutStore(run.rollouts), pictures)
    content |= {"facts": _facts(run, manifest), "curves": curves(read_history(run))}
    return html(
        title=run.path.name,
        subtitle=f"a run of grit_lightning, started {manifest.get('started', '')}{_left_out(pictures)}",
        pictures=pictures.all(),
        content=content,
    )


def predictions_page(file: Path, predictions: Sequence[Prediction], *, resamples: int) -> str:
    """Return the page about predictions: table of metrics, and answers, right and wrong in turn."""
    pictures = Pictures(IMAGE_BYTES)
    content = _answers({"answers": list(predictions)}, pictures, resamples)
    return html(
        title=file.parent.name if file.name == "predictions.jsonl" else file.name,
        subtitle=f"an evaluation of grit_lightning{_left_out(pictures)}",
        pictures=pictures.all(),
        content=content,
    )


def _left_out(pictures: Pictures) -> str:
    return f"; {pictures.left_out} images are not embedded, because the page has many" if pictures.left_out else ""


def _facts(run: RunFolder, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    overrides = " ".join(manifest["overrides"])
    packages = manifest.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    config = OmegaConf.load(run.config_file) if run.config_file.is_file() else OmegaConf.create()
    model = OmegaConf.select(config, "model.checkpoint") or ""
    data = OmegaConf.to_container(OmegaConf.create({"train": OmegaConf.select(config, "data.train")}))
    results = read_results(run) or {}
    seconds = results.get("metrics", {}).get("time/step")
    memory = results.get("metrics", {}).get("memory/peak_gib")
    facts = [
        ("command", f"python -m grit_lightning {overrides}".strip()),
        ("model", str(model)),
        ("data", json.dumps(data["train"], ensure_ascii=False) if isinstance(data, dict) else ""),
        ("steps", str(results.get("step", "not finished"))),
        ("last step", "" if seconds is None else f"{seconds:.3g} s"),
        ("peak memory", "" if memory is None else f"{memory:.3g} GiB"),
        ("machine", f"{manifest.get('platform', '')}, {manifest.get('cpu_count', '')} CPUs"),
        ("Python", str(manifest.get("python", ""))),
        ("versions", versions),
        ("folder", str(run.path)),
    ]  # fmt: skip
    return [(name, value) for name, value in facts if value]


def _answers(answers: Mapping[str, Sequence[Prediction]], pictures: Pictures, resamples: int) -> dict[str, Any]:
    """Return the table of held-out metrics and the answers side by side."""
    answers = {when: ones for when, ones in answers.items() if ones}
    if not answers:
        return {}
    values = {when: sample_values(ones) for when, ones in answers.items()}
    first, *others = values
    changes = {when: differences(values[first], values[when], resamples=resamples) for when in others}
    header, rows = comparison_cells({when: summary(ones) for when, ones in answers.items()}, changes, BRIEF)
    by_sample = {when: _first_of_each(ones) for when, ones in answers.items()}
    last = list(by_sample)[-1]
    before = by_sample[first] if others else {}
    chosen = flips_first(before, by_sample[last], MOST_PAIRS)
    return {
        "table": {"header": header, "rows": rows, "caption": f"{len(values[last])} questions, with 95 % intervals"},
        "pairs": [_pair(name, by_sample, pictures) for name in chosen],
        "pairs_note": f"{len(chosen)} of {len(by_sample[last])} questions: "
        + ("those that became right, those that became wrong, then " if others else "")
        + "right and wrong answers in turn, evenly spaced in the data",
    }


def _first_of_each(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    for one in predictions:
        found.setdefault(one["sample_id"], one)
    return found


def _pair(name: str, by_sample: Mapping[str, Mapping[str, Prediction]], pictures: Pictures) -> dict[str, Any]:
    ones = [(when, found[name]) for when, found in by_sample.items() if name in found]
    completions = [(when, shown(one, pictures.add(images_of(one)))) for when, one in ones]
    marks = ["unscored" if one.right is None else "right" if one.right else "wrong" for _, one in completions]
    return _asked(ones[-1][1]) | {"completions": completions, "kind": " → ".join(marks)}


def _asked(record: Mapping[str, Any]) -> dict[str, str]:
    names = {"question": "question", "reference": "answer", "sample_id": "sample_id", "dataset": "dataset"}
    return {name: str(record[field]) for name, field in names.items()}


def _rollouts(store: RolloutStore, pictures: Pictures) -> dict[str, Any]:
    """Return the steps that are shown, each with all of its groups."""
    every = store.steps()
    if not every:
        return {}
    last = store.read(every[-1])
    chosen = evenly_spaced(every, max(2, MOST_COMPLETIONS // max(1, len(last))))
    steps = [_step(number, store.read(number), pictures) for number in chosen[:-1]] + [_step(every[-1], last, pictures)]
    groups = [group for step in steps for group in step["groups"]]
    return {
        "steps": steps,
        "steps_note": f"{len(chosen)} of {len(every)} steps, each with all of its completions"
        + ("" if len(chosen) == len(every) else ", evenly spaced"),
        "samples": sorted({group["sample_id"] for group in groups}),
        "datasets": sorted({group["dataset"] for group in groups}),
    }


def _step(number: int, records: Sequence[dict[str, Any]], pictures: Pictures) -> dict[str, Any]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["slot"], []).append(record)
    rewards = [record["reward"] for record in records if record["reward"] is not None]
    return {
        "number": number,
        "reward": f"{fmean(rewards):.3g}" if rewards else "-",
        "groups": [
            _asked(group[0]) | {"completions": [shown(one, pictures.add(images_of(one))) for one in group]}
            for group in groups.values()
        ],
    }
