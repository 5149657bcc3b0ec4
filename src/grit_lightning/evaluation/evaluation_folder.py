"""The folder of an evaluation: stores predictions as they are made, so that an interrupted evaluation can resume.

==========================  ==========================================================================
``evaluation.json``         settings that determine the predictions: weights, data, prompt, decoding, judge
``config.yaml``             the resolved config
``predictions.part0.jsonl`` predictions so far, one file per process; removed at the end
``predictions.jsonl``       all predictions, in the order of the samples
``metrics.json``            metrics and intervals
==========================  ==========================================================================

The predictions of a sample are flushed to disk before those of the next are written. A line that a killed process
left incomplete is skipped on reading, and its sample is answered again.
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
from grit_lightning.system.files import versions_of, write_atomic
from grit_lightning.system.locks import held
from grit_lightning.types import Sample

_MISSING = object()


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """The folder of an evaluation. Creating this object neither reads nor writes files."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """The settings that determine the predictions, as JSON. This file marks the folder as an evaluation."""
        return self.path / "evaluation.json"

    @property
    def config_file(self) -> Path:
        """The resolved config, as YAML."""
        return self.path / "config.yaml"

    @property
    def predictions_file(self) -> Path:
        """All predictions, as JSON lines."""
        return self.path / "predictions.jsonl"

    @property
    def metrics_file(self) -> Path:
        """Metrics and intervals, as JSON."""
        return self.path / "metrics.json"

    @property
    def lock_file(self) -> Path:
        """The lock that an evaluation holds while it works in the folder."""
        return self.path / ".lock"

    def part(self, rank: int) -> Path:
        """Return the file of the predictions that the process of this rank has made so far."""
        return self.path / f"predictions.part{rank}.jsonl"

    def is_free(self) -> bool:
        """Tell whether the folder can be used for a new evaluation.

        It can if it does not exist, is empty, or holds an evaluation that has no predictions yet.
        """
        if not self.path.is_dir():
            return not self.path.exists()
        there = set(self.path.iterdir()) - {self.lock_file}
        return not there or (self.settings_file in there and there <= {self.settings_file, self.config_file})

    def begin(self, settings: Mapping[str, Any], config_yaml: str) -> None:
        """Make the folder and write the settings and the config. Call it on one process only."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.settings_file, json.dumps(settings, indent=2, allow_nan=False) + "\n")
        write_atomic(self.config_file, config_yaml)

    def settings(self) -> dict[str, Any] | None:
        """Return the settings the evaluation was started with; ``None`` if the folder holds no evaluation.

        Raises:
            DataError: ``evaluation.json`` is not valid JSON.
        """
        if not self.settings_file.is_file():
            return None
        try:
            found = json.loads(self.settings_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"not valid JSON ({error})", str(self.settings_file)) from error
        return found if isinstance(found, dict) else None

    def predictions(self) -> tuple[list[Prediction], list[DataError]]:
        """Return the predictions that all processes have written so far, and a problem for each unusable line."""
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
        """Append the predictions of a sample to the file of this rank in a single write, and flush them to disk."""
        with self.part(rank).open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            begin = b"" if file.read(1) in (b"", b"\n") else b"\n"  # end a torn line
            file.write(begin + "".join(map(as_line, predictions)).encode())
            os.fsync(file.fileno())

    def finish(self, predictions: Sequence[Prediction], metrics: Mapping[str, Any]) -> None:
        """Write all predictions and their metrics, then remove the per-process files. Call it on one process only."""
        write_predictions(self.predictions_file, predictions)
        write_atomic(self.metrics_file, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        for part in self.path.glob("predictions.part*.jsonl"):
            part.unlink()


def complete(predictions: Sequence[Prediction], samples: Sequence[Sample], each: int) -> dict[str, list[Prediction]]:
    """Return the predictions, by sample id, of the samples for which all ``each`` completions exist, in their order."""
    by_key = {key(one): one for one in predictions}
    groups = {sample.id: [by_key.get((sample.id, index)) for index in range(each)] for sample in samples}
    return {name: [one for one in group if one] for name, group in groups.items() if None not in group}


def first_difference(saved: Any, wanted: Any, path: str = "") -> str | None:
    """Return the key of the first difference between two settings, such as ``prompt.template``; ``None`` if equal."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for name in dict.fromkeys((*wanted, *saved)):
            inner = f"{path}.{name}" if path else name
            if found := first_difference(saved.get(name, _MISSING), wanted.get(name, _MISSING), inner):
                return found
        return None
    return None if saved == wanted else path


def folder_for(path: Path, settings: Mapping[str, Any]) -> EvaluationFolder:
    """Return the first of ``path``, ``path_v2``, … that is free or holds an evaluation with the same settings."""
    folders = map(EvaluationFolder, versions_of(path))
    return next(folder for folder in folders if folder.is_free() or folder.settings() == settings)


@contextmanager
def lock_folder(folder: EvaluationFolder) -> Iterator[None]:
    """Keep other evaluations out of the folder while the block runs. Use it on one process only.

    Raises:
        ConfigError: another evaluation is working in the folder.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    busy = f"another process is evaluating into {folder.path}: wait for it, or choose another out=…"
    with held(folder.lock_file, busy=busy):
        yield
