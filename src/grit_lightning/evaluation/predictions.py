"""Predictions: scored completions of held-out samples, stored as JSON lines. All metrics are computed from them.

A file has one line for each completion of each sample. A line has the fields of a stored rollout
(``runs.records.records``) that do not belong to training, and

- ``completion_index``: 0 for a greedy completion, 0 … k − 1 for k sampled completions,
- ``prompt_version``: changes with the text of the prompt and its prefill,
- ``parsed_answer``: the result of :func:`given_answer`, which falls back to the whole text without an ``<answer>``,
- ``scores``: scores by name, ``null`` for a score that could not be computed: ``judge``, the judge's raw score, 0 to 1;
  ``exact_match``, 0 or 1; and the additional measures of the evaluation,
- ``judge``: name of the judge that gave the ``judge`` score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grit_lightning import grounding
from grit_lightning.errors import DataError
from grit_lightning.runs.record_rules import (
    BOXES,
    IMAGE_NUMBERS,
    IMAGES,
    LABELS,
    SCORES,
    SHARES,
    TEXT,
    TEXTS,
    WHOLE,
    WRITTEN_BOXES,
    Rule,
    image_problem,
    problem_of,
)
from grit_lightning.runs.records import ABSENT_BEFORE, completion_fields, prompt_fields
from grit_lightning.system.files import write_atomic
from grit_lightning.system.jsonl import parse_object, read_lines
from grit_lightning.types import Completion, Prompt

Prediction = dict[str, Any]

Key = tuple[str, int]
"""Identifies a prediction within a file: the sample id and the completion index."""

JUDGE, EXACT_MATCH = SHARES
"""Names of the two built-in scores, which every prediction has."""

_FIELDS: Mapping[str, Rule] = {
    **dict.fromkeys(("sample_id", "dataset", "question", "answer", "text", "parsed_answer", "finish"), TEXT),
    **dict.fromkeys(("completion_index", "num_tokens"), WHOLE),
    "boxes": WRITTEN_BOXES,
    "reference_boxes": BOXES,
    "reference_images": IMAGE_NUMBERS,
    "reference_labels": LABELS,
    "more_images": IMAGES,
    "options": TEXTS,
    "scores": SCORES,
}
"""Validation rules for the fields that the metrics read."""


def prediction(
    prompt: Prompt, completion: Completion, *, index: int, prompt_version: str, scores: Mapping[str, Any], judge: str
) -> Prediction:
    """Return the record of one completion.

    Args:
        prompt: the prompt that was answered.
        completion: the completion of that prompt.
        index: index of the completion among those of its sample, from 0.
        prompt_version: version of the prompt template.
        scores: scores of the completion by name.
        judge: name of the judge that gave the ``judge`` score.
    """
    return {
        **prompt_fields(prompt),
        "prompt_version": prompt_version,
        "completion_index": index,
        **completion_fields(completion, prompt.sample.sizes),
        "parsed_answer": given_answer(completion.text),
        "scores": dict(scores),
        "judge": judge,
    }


def given_answer(text: str) -> str:
    """Return the text of the answer section, or the whole text if it has no ``<answer>``, as after a plain prompt."""
    answer = grounding.answer_text(text)
    return (text if answer is None else answer).strip()


def key(one: Prediction) -> Key:
    """Return the :data:`Key` of the prediction."""
    return one["sample_id"], one["completion_index"]


def is_scored(one: Prediction) -> bool:
    """Tell whether every score of the prediction has a value."""
    return None not in one["scores"].values()


def as_line(one: Prediction) -> str:
    """Serialise the prediction as one JSON line, with its line break."""
    return json.dumps(one, allow_nan=False) + "\n"  # ASCII only: some readers split lines at Unicode separators


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one line per prediction. The write is atomic: the file appears complete or not at all."""
    write_atomic(path, "".join(map(as_line, predictions)))


def read_predictions(path: Path) -> tuple[list[Prediction], list[DataError]]:
    """Return the predictions of a file in order, and a problem for each invalid or duplicate line.

    Invalid lines do not stop the reading, because a process that is killed while it writes leaves a torn line behind.

    Raises:
        DataError: the file cannot be read.
    """
    found: dict[Key, Prediction] = {}
    problems: list[DataError] = []
    for source, line in read_lines(path):
        one = _read(line, source)
        if isinstance(one, DataError):
            problems.append(one)
        elif key(one) in found:
            duplicate = (
                f"completion {one['completion_index']} of sample {one['sample_id']} appears twice; the first is used"
            )
            problems.append(DataError(duplicate, source))
        else:
            found[key(one)] = one
    return list(found.values()), problems


def _read(line: bytes, source: str) -> Prediction | DataError:
    try:
        one = parse_object(line, source)
    except DataError as error:
        return error
    every = {**ABSENT_BEFORE, **one}
    problem = problem_of(every, _FIELDS) or image_problem(every)
    return one if problem is None else DataError(problem, source)
