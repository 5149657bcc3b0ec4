"""Reads stored rollouts to be scored again: the files of a run, or one file of rollouts or predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.runs.record_rules import (
    BOXES,
    COMPONENTS,
    ERRORS,
    FINISH,
    SCORE,
    SIZE,
    TEXT,
    TOKENS,
    WHOLE,
    Rule,
    problem_of,
)
from grit_lightning.runs.records import from_record
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.runs.run_folder import RunFolder, open_run
from grit_lightning.system.jsonl import TornLineError, parse_object, read_lines
from grit_lightning.types import Completion, Sample, Score


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored completion.

    Attributes:
        sample: what it answers.
        completion: what was written.
        step: the optimizer step it was sampled for, from 1; ``None`` for a prediction of an evaluation.
        slot: the prompt's number within the step; ``None`` for a prediction.
        index: its own number within the group, or among the completions of its sample.
        score: what the run's rewards said of it; ``None`` for a prediction, which has no rewards.
    """

    sample: Sample
    completion: Completion
    step: int | None
    slot: int | None
    index: int
    score: Score | None


def files_of(path: Path) -> list[Path]:
    """The files of rollouts of a run folder, by step; a file is taken as it is.

    Raises:
        UserError: there is nothing of this kind.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError("does not exist; expected a run folder or a JSONL file of rollouts", str(path))
    store = RolloutStore(open_run(path).rollouts)
    files = [store.file(step) for step in store.steps()]
    if not files:
        raise DataError("no rollouts here.", str(store.folder))
    return files


def run_of(path: Path) -> RunFolder | None:
    """The run that a path is, or that a file of rollouts or predictions lies in; ``None`` for a file of its own."""
    folders = (path, *path.parents[:3])  # RUN, RUN/rollouts/FILE, RUN/eval/FILE, RUN/eval/NAME/FILE
    return next((run for run in map(RunFolder, folders) if run.manifest_file.is_file()), None)


def count_lines(files: Sequence[Path]) -> int:
    """Lines of the files, which are as many as completions where none is torn.

    Raises:
        DataError: a file cannot be read.
    """
    return sum(1 for path in files for _ in read_lines(path))


def read(files: Sequence[Path]) -> Iterator[Stored | DataError]:
    """Yields the completions in the order of the files, and one DataError for a file whose last line is torn.

    Raises:
        DataError: another line is no rollout, or a completion is there twice.
    """
    seen: set[tuple[int | None, int | None, int]] = set()
    for path in files:
        for source, record in _records(path):
            if isinstance(record, DataError):
                yield record
                continue
            stored = _stored(record, source)
            key = (stored.step, stored.slot, stored.index)
            if stored.step is not None and key in seen:
                raise DataError(f"completion {key[2]} of step {key[0]}, slot {key[1]} is there twice", source)
            seen.add(key)
            yield stored


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """The JSON object of each line, with its ``file:line``; of a last line that cannot be read, what is wrong."""
    torn: DataError | None = None
    for source, line in read_lines(path):
        if torn is not None:
            raise torn
        try:
            record = parse_object(line, source)
        except TornLineError as error:
            torn = error
            continue
        yield source, record
    if torn is not None:
        yield torn.source, torn


def _stored(record: dict[str, Any], source: str) -> Stored:
    is_prediction = "rewards" not in record and "scores" in record  # as ``evaluation.predictions`` makes them
    if problem := problem_of(record, _SAMPLE_FIELDS if is_prediction else _FIELDS):
        raise DataError(problem, source)
    sample, completion = from_record(record)
    if is_prediction:
        return Stored(sample, completion, step=None, slot=None, index=record["completion_index"], score=None)
    score = Score(record["rewards"], record["reward"], record["reward_errors"])
    return Stored(sample, completion, record["step"], record["slot"], record["completion_index"], score)


_SAMPLE_FIELDS: Mapping[str, Rule] = {
    **dict.fromkeys(("sample_id", "question", "answer", "image", "dataset", "split", "source", "text"), TEXT),
    "image_size": SIZE,
    "box_space": SIZE,
    "reference_boxes": BOXES,
    "token_ids": TOKENS,
    "finish": FINISH,
    "completion_index": WHOLE,
}
_FIELDS: Mapping[str, Rule] = {
    **_SAMPLE_FIELDS,
    **dict.fromkeys(("step", "slot"), WHOLE),
    "rewards": COMPONENTS,
    "reward": SCORE,
    "reward_errors": ERRORS,
}
