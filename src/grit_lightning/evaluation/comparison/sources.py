"""What is compared: predictions, found by a run, an evaluation or a file, under short names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.evaluation.evaluation_folder import EvaluationFolder
from grit_lightning.evaluation.predictions import Prediction, read_predictions
from grit_lightning.model.backbones.prompts import prompt_name
from grit_lightning.runs.run_folder import RunFolder

_AFTER_TRAINING = "after.jsonl"
"""In a run's folder of evaluations: the held-out samples that its training ended with."""

_NOT_IN_NAMES = ("eval", "predictions.jsonl")
"""Parts of paths that tell no evaluation from another."""

_TIME = re.compile(r"^\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}_")
_LONGEST_NAME = 32


@dataclass(frozen=True, slots=True)
class Source:
    """Where predictions lie.

    Attributes:
        entry: as it was asked for: a run, an evaluation or a file.
        file: the predictions.
        folder: of the evaluation that the file is of; ``None`` where there is only the file.
    """

    entry: Path
    file: Path
    folder: EvaluationFolder | None


@dataclass(frozen=True, slots=True)
class Column:
    """Predictions under a name.

    Attributes:
        name: unlike all others'.
        file: where they lie.
        settings: how they were made, ``evaluation.json``; ``None`` where that is not known.
        predictions: those that could be read.
        finished: whether the evaluation has come to its end, as far as that is known.
    """

    name: str
    file: Path
    settings: Mapping[str, Any] | None
    predictions: Sequence[Prediction]
    finished: bool

    @property
    def judges(self) -> list[str]:
        """Who gave the scores; of predictions that do not say, what the settings do."""
        found = dict.fromkeys(one["judge"] for one in self.predictions if isinstance(one.get("judge"), str))
        return list(found) or ([self.settings["judge"]] if self.settings and "judge" in self.settings else [])

    @property
    def samples_each(self) -> int:
        """Completions of each sample."""
        return 1 + max(one["completion_index"] for one in self.predictions)

    def how(self) -> str:
        """How the predictions were made, on one line."""
        settings = self.settings or {}
        versions = dict.fromkeys(str(one["prompt_version"]) for one in self.predictions if one.get("prompt_version"))
        samples = len({one["sample_id"] for one in self.predictions})
        parts = [
            _weights(settings.get("weights")),
            f"prompt {' and '.join(map(prompt_name, versions)) or 'not recorded'}",
            decoding_text(settings.get("decoding"), self.samples_each),
            f"judged by {' and '.join(self.judges) or 'whom is not recorded'}",
            "1 sample" if samples == 1 else f"{samples} samples",
        ]
        return ", ".join(filter(None, parts)) + ("" if self.finished else ", not finished")


def decoding_text(decoding: Mapping[str, Any] | None, samples_each: int) -> str:
    """How completions were decoded, such as ``greedy, up to 112 tokens``."""
    if not decoding:
        return f"{samples_each} completions of each" if samples_each > 1 else "decoding not recorded"
    sampling, limit = decoding.get("sampling"), f"up to {decoding.get('max_new_tokens')} tokens"
    if not isinstance(sampling, Mapping):
        return f"{sampling}, {limit}"
    values = ", ".join(
        f"{name} {sampling[name]}" for name in ("temperature", "top_k", "top_p", "seed") if name in sampling
    )
    return f"{sampling.get('num_generations')} completions of each ({values}), {limit}"


def _weights(weights: Any) -> str:
    if not isinstance(weights, Mapping):
        return ""
    trained = f" trained for {weights['step']} steps" if "step" in weights else ""
    return f"{weights.get('checkpoint')}{trained}"


# ---- where they lie ----


def find(entry: Path) -> Source:
    """Where the predictions of a run, an evaluation or a file lie.

    A run stands for its newest finished evaluation by ``task=evaluate``, else for the answers its training ended with.

    Raises:
        DataError: there are none.
    """
    if entry.is_file():
        folder = EvaluationFolder(entry.parent)
        return Source(entry, entry, folder if entry == folder.predictions_file else None)
    if not entry.exists():
        raise DataError(
            "does not exist; expected a run, the folder of an evaluation, or a file of predictions", str(entry)
        )
    run, folder = RunFolder(entry), EvaluationFolder(entry)
    if run.manifest_file.is_file():
        return _of_run(run)
    if folder.settings_file.is_file() or folder.predictions_file.is_file():
        return Source(entry, folder.predictions_file, folder)
    raise DataError(
        f"is neither a run (no {run.manifest_file.name}) nor an evaluation (no {folder.settings_file.name})", str(entry)
    )


def _of_run(run: RunFolder) -> Source:
    folders = map(EvaluationFolder, run.evaluation.glob("*/"))
    finished = [folder for folder in folders if folder.metrics_file.is_file() and folder.predictions_file.is_file()]
    if finished:
        newest = max(finished, key=lambda folder: (folder.metrics_file.stat().st_mtime_ns, folder.path.name))
        return Source(run.path, newest.predictions_file, newest)
    after = run.evaluation / _AFTER_TRAINING
    if after.is_file():
        return Source(run.path, after, None)
    raise DataError(f"this run has not been evaluated yet: task=evaluate ckpt={run.path}", str(run.path))


def read(source: Source, name: str) -> tuple[Column, list[DataError]]:
    """The predictions, and a problem for each line, and for settings, that cannot be used.

    Raises:
        DataError: there is no prediction in it that can be used.
    """
    folder, settings, finished = source.folder, None, True
    problems: list[DataError] = []
    if folder is None:
        predictions, problems = read_predictions(source.file)
    else:
        predictions, problems = folder.predictions()
        finished = folder.metrics_file.is_file() or not folder.settings_file.is_file()
        try:
            settings = folder.settings()
        except DataError as error:
            problems.append(error)
    if not predictions:
        first = f": {problems[0]}" if problems else ""
        raise DataError(f"holds no prediction that can be used{first}", str(source.file))
    return Column(name, source.file, settings, predictions, finished), problems


# ---- what they are called ----


def column_names(sources: Sequence[Source]) -> list[str]:
    """A short name for each, unlike the others: as many last parts of their paths as that takes.

    A run goes by its own name, not by that of its evaluation, where that tells it from the others.
    """
    deepest = max(len(source.file.parts) for source in sources)
    for paths in ([source.entry for source in sources], [source.file for source in sources]):
        for depth in range(1, deepest + 1):
            for without_time in (True, False):
                names = [_name(path, depth, without_time=without_time) for path in paths]
                if len(set(names)) == len(names):
                    return names
    return _numbered(names)  # the same predictions twice


def _name(path: Path, depth: int, *, without_time: bool) -> str:
    parts = [part for part in path.parts if part not in (path.anchor, *_NOT_IN_NAMES)] or [path.name]
    parts = [_TIME.sub("", part) if without_time else part for part in parts[-depth:]]
    name = "/".join(parts).removesuffix(".jsonl")
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _numbered(names: Sequence[str]) -> list[str]:
    """The last parts of names that are not all different, numbered where they come again."""
    result: list[str] = []
    for name in (name.rpartition("/")[2] for name in names):
        candidates = (name if again == 1 else f"{name} ({again})" for again in itertools.count(1))
        result.append(next(one for one in candidates if one not in result))
    return result
