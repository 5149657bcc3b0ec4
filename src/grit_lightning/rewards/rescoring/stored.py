"""Reader of stored completions for rescoring: the rollout files of a run, or one file of rollouts or predictions."""

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
    IMAGE_NUMBERS,
    IMAGES,
    LABELS,
    OBJECT,
    SCORE,
    SIZE,
    SIZES,
    TEXT,
    TEXTS,
    TOKENS,
    WHOLE,
    Rule,
    image_problem,
    problem_of,
    space_problem,
)
from grit_lightning.runs.records import ABSENT_BEFORE, from_record
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.runs.run_folder import RunFolder, open_run
from grit_lightning.system.files import require_regular
from grit_lightning.system.jsonl import TornLineError, parse_object, read_lines
from grit_lightning.types import Completion, Sample, Score


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored completion.

    Attributes:
        sample: sample that the completion answers.
        completion: the completion.
        step: optimizer step that the completion was sampled for, from 1; ``None`` for a prediction of an evaluation.
        slot: index of the prompt within the step; ``None`` for a prediction.
        index: index of the completion within its group, or among the predictions for its sample.
        score: score under the rewards of the run; ``None`` for a prediction, which has no rewards.
    """

    sample: Sample
    completion: Completion
    step: int | None
    slot: int | None
    index: int
    score: Score | None


def files_of(path: Path) -> list[Path]:
    """Return the rollout files of a run folder in the order of steps; for a path to a file, return that file.

    Raises:
        UserError: the path does not exist, is no regular file, is not a run, or is a run without rollouts.
    """
    require_regular(path)
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
    """Return the run at a path, or the run that contains a rollout or prediction file; ``None`` for any other file."""
    folders = (path, *path.parents[:3])  # RUN, RUN/rollouts/FILE, RUN/eval/FILE, RUN/eval/NAME/FILE
    return next((run for run in map(RunFolder, folders) if run.manifest_file.is_file()), None)


def count_lines(files: Sequence[Path]) -> int:
    """Count the lines of the files that are not blank. Without torn lines, this is the number of completions.

    Raises:
        DataError: a file cannot be read.
    """
    return sum(1 for path in files for _ in read_lines(path))


def read(files: Sequence[Path]) -> Iterator[Stored | DataError]:
    """Yield the completions in the order of the files, and a DataError for each file whose last line is torn.

    Raises:
        DataError: a line other than the last is torn, a line is not a valid record, or a rollout appears twice.
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
                raise DataError(f"completion {key[2]} of step {key[0]}, slot {key[1]} appears twice", source)
            seen.add(key)
            yield stored


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """Yield ``(file:line, JSON object)`` for each line; a torn last line yields its error in place of the object."""
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
    is_prediction = "rewards" not in record and "scores" in record  # the format of ``evaluation.predictions``
    record = {**ABSENT_BEFORE, **record}
    problem = problem_of(record, _SAMPLE_FIELDS if is_prediction else _FIELDS)
    if problem := problem or space_problem(record) or image_problem(record):
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
    "more_images": IMAGES,
    "more_box_spaces": SIZES,
    "reference_boxes": BOXES,
    "reference_images": IMAGE_NUMBERS,
    "reference_labels": LABELS,
    "options": TEXTS,
    "extra": OBJECT,
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
