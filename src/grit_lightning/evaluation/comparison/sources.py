"""The predictions to compare: locates them in a run, an evaluation folder or a file, and gives them short names."""

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
from grit_lightning.system.files import require_regular

_AFTER_TRAINING = "after.jsonl"
"""File in a run's evaluation folder with the predictions that were made at the end of training."""

_NOT_IN_NAMES = ("eval", "predictions.jsonl")
"""Parts of paths that are the same for all evaluations, so that column names leave them out."""

_TIME = re.compile(r"^\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}_")
_LONGEST_NAME = 32


@dataclass(frozen=True, slots=True)
class Source:
    """The location of predictions.

    Attributes:
        entry: path that the user gave: a run, an evaluation folder or a file.
        file: file of the predictions.
        folder: evaluation folder that holds the file; ``None`` for a file that stands alone.
    """

    entry: Path
    file: Path
    folder: EvaluationFolder | None


@dataclass(frozen=True, slots=True)
class Column:
    """Named predictions, which make up one column of a comparison.

    Attributes:
        name: name of the column, unique within the comparison.
        file: file of the predictions.
        settings: settings of the evaluation (``evaluation.json``); ``None`` if they are unknown.
        predictions: the predictions that could be read.
        finished: False if the evaluation is known to be incomplete.
    """

    name: str
    file: Path
    settings: Mapping[str, Any] | None
    predictions: Sequence[Prediction]
    finished: bool

    @property
    def judges(self) -> list[str]:
        """Names of the judges that the predictions record; the judge of the settings if they record none."""
        found = dict.fromkeys(one["judge"] for one in self.predictions if isinstance(one.get("judge"), str))
        return list(found) or ([self.settings["judge"]] if self.settings and "judge" in self.settings else [])

    @property
    def samples_each(self) -> int:
        """The number of completions per sample."""
        return 1 + max(one["completion_index"] for one in self.predictions)

    def how(self) -> str:
        """Return one line with the weights, prompt, decoding, judge and number of samples of the predictions."""
        settings = self.settings or {}
        versions = dict.fromkeys(str(one["prompt_version"]) for one in self.predictions if one.get("prompt_version"))
        samples = len({one["sample_id"] for one in self.predictions})
        parts = [
            _weights(settings.get("weights")),
            f"prompt {' and '.join(map(prompt_name, versions)) or 'not recorded'}",
            decoding_text(settings.get("decoding"), self.samples_each),
            f"judged by {' and '.join(self.judges) or 'an unrecorded judge'}",
            "1 sample" if samples == 1 else f"{samples} samples",
        ]
        return ", ".join(filter(None, parts)) + ("" if self.finished else ", not finished")


def decoding_text(decoding: Mapping[str, Any] | None, samples_each: int) -> str:
    """Describe the decoding, such as ``greedy, up to 112 tokens``."""
    if not decoding:
        return f"{samples_each} completions per sample" if samples_each > 1 else "decoding not recorded"
    sampling, limit = decoding.get("sampling"), f"up to {decoding.get('max_new_tokens')} tokens"
    if not isinstance(sampling, Mapping):
        return f"{sampling}, {limit}"
    values = ", ".join(
        f"{name} {sampling[name]}" for name in ("temperature", "top_k", "top_p", "seed") if name in sampling
    )
    return f"{sampling.get('num_generations')} completions per sample ({values}), {limit}"


def _weights(weights: Any) -> str:
    if not isinstance(weights, Mapping):
        return ""
    trained = f" trained for {weights['step']} steps" if "step" in weights else ""
    return f"{weights.get('checkpoint')}{trained}"


# ---- locating and reading predictions ----


def find(entry: Path) -> Source:
    """Locate the predictions of a run, an evaluation folder or a file.

    For a run, return its newest finished evaluation by ``task=evaluate``; if there is none, return the predictions made
    at the end of its training.

    Raises:
        DataError: the path does not exist, is no regular file, or holds no predictions.
    """
    require_regular(entry)
    if entry.is_file():
        folder = EvaluationFolder(entry.parent)
        return Source(entry, entry, folder if entry == folder.predictions_file else None)
    if not entry.exists():
        raise DataError(
            "does not exist; expected a run, the folder of an evaluation, or a file of predictions", str(entry)
        )
    run, folder = RunFolder(entry), EvaluationFolder(entry)
    if run.manifest_file.is_file():
        return _source_of_run(run)
    if folder.settings_file.is_file() or folder.predictions_file.is_file():
        return Source(entry, folder.predictions_file, folder)
    raise DataError(
        f"is neither a run (no {run.manifest_file.name}) nor an evaluation (no {folder.settings_file.name})", str(entry)
    )


def _source_of_run(run: RunFolder) -> Source:
    folders = map(EvaluationFolder, run.evaluation.glob("*/"))
    finished = [folder for folder in folders if folder.metrics_file.is_file() and folder.predictions_file.is_file()]
    if finished:
        newest = max(finished, key=lambda folder: (folder.metrics_file.stat().st_mtime_ns, folder.path.name))
        return Source(run.path, newest.predictions_file, newest)
    after = run.evaluation / _AFTER_TRAINING
    if after.is_file():
        return Source(run.path, after, None)
    raise DataError(f"this run has not been evaluated yet: task=evaluate run={run.path}", str(run.path))


def read(source: Source, name: str) -> tuple[Column, list[DataError]]:
    """Read the predictions of a source; return them as a column, and a problem for each unusable line or settings file.

    Raises:
        DataError: the source holds no usable prediction.
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


# ---- naming columns ----


def column_names(sources: Sequence[Source]) -> list[str]:
    """Return a short, unique name for each source: as few trailing parts of its path as make the names unique.

    The paths that the user gave are tried first, so that a run has its own name rather than that of its evaluation,
    then the paths of the prediction files. Timestamps are left out of names that are unique without them.
    """
    deepest = max(len(source.file.parts) for source in sources)
    for paths in ([source.entry for source in sources], [source.file for source in sources]):
        for depth in range(1, deepest + 1):
            for without_time in (True, False):
                names = [_name(path, depth, without_time=without_time) for path in paths]
                if len(set(names)) == len(names):
                    return names
    return _numbered(names)  # the same file was given twice


def _name(path: Path, depth: int, *, without_time: bool) -> str:
    parts = [part for part in path.parts if part not in (path.anchor, *_NOT_IN_NAMES)] or [path.name]
    parts = [_TIME.sub("", part) if without_time else part for part in parts[-depth:]]
    name = "/".join(parts).removesuffix(".jsonl")
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the last path part of each name, with a number appended to repeated ones: ``a``, ``a (2)``."""
    result: list[str] = []
    for name in (name.rpartition("/")[2] for name in names):
        candidates = (name if again == 1 else f"{name} ({again})" for again in itertools.count(1))
        result.append(next(one for one in candidates if one not in result))
    return result
