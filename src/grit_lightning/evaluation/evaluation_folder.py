"""The folder of an evaluation: predictions as they come in, so that one that was stopped goes on.

==========================  ==========================================================================
``evaluation.json``         what decides the predictions: weights, data, prompt, decoding, judge
``config.yaml``             the resolved config
``predictions.part0.jsonl`` predictions so far, a file for each process; gone at the end
``predictions.jsonl``       all predictions, in the order of the samples
``metrics.json``            what they are worth
==========================  ==========================================================================

A line is on disk before the next is written. What a killed process left of a line is passed over, and its sample
answered again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.evaluation.predictions import Prediction, as_line, key, read_predictions, write_predictions
from grit_lightning.system.files import held, versions_of, write_atomic
from grit_lightning.types import Sample

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """The folder of an evaluation, by its path; nothing is read or written until asked for."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """What decides the predictions, JSON. A folder with this file is an evaluation."""
        return self.path / "evaluation.json"

    @property
    def config_file(self) -> Path:
        """The resolved config, YAML."""
        return self.path / "config.yaml"

    @property
    def predictions_file(self) -> Path:
        """All predictions, JSONL."""
        return self.path / "predictions.jsonl"

    @property
    def metrics_file(self) -> Path:
        """Metrics and intervals, JSON."""
        return self.path / "metrics.json"

    @property
    def lock_file(self) -> Path:
        """Held while processes work on it."""
        return self.path / ".lock"

    def part(self, rank: int) -> Path:
        """The predictions of one process so far."""
        return self.path / f"predictions.part{rank}.jsonl"

    def is_free(self) -> bool:
        """Whether nothing is there, or only the beginning of an evaluation that has not answered anything."""
        if not self.path.is_dir():
            return not self.path.exists()
        there = set(self.path.iterdir()) - {self.lock_file}
        return not there or (self.settings_file in there and there <= {self.settings_file, self.config_file})

    def begin(self, settings: Mapping[str, Any], config_yaml: str) -> None:
        """Make the folder. On one process."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.settings_file, json.dumps(settings, indent=2, allow_nan=False) + "\n")
        write_atomic(self.config_file, config_yaml)

    def settings(self) -> dict[str, Any] | None:
        """What it was begun with; ``None`` where this is no evaluation.

        Raises:
            DataError: the file holds something else.
        """
        if not self.settings_file.is_file():
            return None
        try:
            found = json.loads(self.settings_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"not valid JSON ({error})", str(self.settings_file)) from error
        return found if isinstance(found, dict) else None

    def predictions(self) -> tuple[list[Prediction], list[DataError]]:
        """What is there so far, whichever process wrote it, and a problem for each line that cannot be used."""
        parts = sorted(self.path.glob("predictions.part*.jsonl"))
        found: dict[Any, Prediction] = {}
        problems: list[DataError] = []
        for file in [self.predictions_file, *parts]:
            if file.is_file():
                predictions, bad = read_predictions(file)
                found = {key(one): one for one in predictions} | found
                problems += bad
        return list(found.values()), problems

    def append(self, rank: int, predictions: Sequence[Prediction]) -> None:
        """Add a sample's predictions to the process's part, in a single write, and see them to disk."""
        with self.part(rank).open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            begin = b"" if file.read(1) in (b"", b"\n") else b"\n"  # after a line that was torn
            file.write(begin + "".join(map(as_line, predictions)).encode())
            os.fsync(file.fileno())

    def finish(self, predictions: Sequence[Prediction], metrics: Mapping[str, Any]) -> None:
        """Write all predictions and their metrics, then take the parts away. On one process."""
        write_predictions(self.predictions_file, predictions)
        write_atomic(self.metrics_file, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        for part in self.path.glob("predictions.part*.jsonl"):
            part.unlink()


def complete(predictions: Sequence[Prediction], samples: Sequence[Sample], each: int) -> dict[str, list[Prediction]]:
    """The predictions of each sample of which all are there, by its id, in order; of other samples none."""
    by_key = {key(one): one for one in predictions}
    groups = {sample.id: [by_key.get((sample.id, index)) for index in range(each)] for sample in samples}
    return {name: [one for one in group if one] for name, group in groups.items() if None not in group}


def first_difference(saved: Any, wanted: Any, path: str = "") -> str | None:
    """Where two settings differ, such as ``prompt.template``; ``None`` where they do not."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for name in dict.fromkeys((*wanted, *saved)):
            inner = f"{path}.{name}" if path else name
            if found := first_difference(saved.get(name, _NOTHING), wanted.get(name, _NOTHING), inner):
                return found
        return None
    return None if saved == wanted else path


def folder_for(path: Path, settings: Mapping[str, Any]) -> EvaluationFolder:
    """Return the first of ``path``, ``…_v2``, … that is free or holds the evaluation with these settings."""
    folders = map(EvaluationFolder, versions_of(path))
    return next(folder for folder in folders if folder.is_free() or folder.settings() == settings)


@contextmanager
def lock_folder(folder: EvaluationFolder) -> Iterator[None]:
    """Keep other evaluations out of the folder while the block runs. On one process.

    Raises:
        ConfigError: another evaluation is at work in it.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    busy = f"another process is evaluating into {folder.path}: wait for it, or give out=…"
    with held(folder.lock_file, busy=busy):
        yield
