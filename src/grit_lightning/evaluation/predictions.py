"""Predictions: what a model wrote about a sample, and what that is worth, as JSON lines. All metrics come from them.

One line for each completion of each sample. Its fields are those of a rollout (``rollout_store.records``) that do not
belong to training, and

- ``completion_index``: 0 for a greedy answer, 0 … k − 1 for k samples,
- ``prompt_version``: changes with the text of the prompt and its prefill,
- ``parsed_answer``: :func:`given_answer`, in place of the text of the ``<answer>`` section alone,
- ``scores``: by name, ``null`` where something could not be scored: ``judge``, the raw verdict, 0 to 1;
  ``exact_match``, 0 or 1; and whatever else was asked for,
- ``judge``: who gave the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grit_lightning import grounding
from grit_lightning.errors import DataError
from grit_lightning.runs.record_rules import BOXES, SCORES, TEXT, WHOLE, WRITTEN_BOXES, Rule, problem_of
from grit_lightning.runs.records import completion_fields, prompt_fields
from grit_lightning.system.files import write_atomic
from grit_lightning.system.jsonl import parse_object, read_lines
from grit_lightning.types import Completion, Prompt

Prediction = dict[str, Any]

Key = tuple[str, int]
"""What tells a prediction from all others of a file: the sample's id and the completion's index."""

JUDGE, EXACT_MATCH = "judge", "exact_match"
"""Names of the two scores that every prediction has."""

_FIELDS: Mapping[str, Rule] = {
    **dict.fromkeys(("sample_id", "dataset", "question", "answer", "text", "parsed_answer", "finish"), TEXT),
    **dict.fromkeys(("completion_index", "num_tokens"), WHOLE),
    "boxes": WRITTEN_BOXES,
    "reference_boxes": BOXES,
    "scores": SCORES,
}
"""What metrics read."""


def prediction(
    prompt: Prompt, completion: Completion, *, index: int, prompt_version: str, scores: Mapping[str, Any], judge: str
) -> Prediction:
    """The record of one completion.

    Args:
        prompt: what was asked.
        completion: what was written.
        index: its number among the completions of its sample.
        prompt_version: of the prompt's template.
        scores: by name.
        judge: who gave the first of them.
    """
    return {
        **prompt_fields(prompt),
        "prompt_version": prompt_version,
        "completion_index": index,
        **completion_fields(completion, prompt.sample.size),
        "parsed_answer": given_answer(completion.text),
        "scores": dict(scores),
        "judge": judge,
    }


def given_answer(text: str) -> str:
    """The text of the answer section; the whole text where there is no ``<answer>``, as after a plain prompt."""
    answer = grounding.answer_text(text)
    return (text if answer is None else answer).strip()


def key(one: Prediction) -> Key:
    """The prediction's :data:`Key`."""
    return one["sample_id"], one["completion_index"]


def is_scored(one: Prediction) -> bool:
    """Whether nothing that was asked for is missing."""
    return None not in one["scores"].values()


def as_line(one: Prediction) -> str:
    """The prediction as one line of a file, with its line break."""
    return json.dumps(one, allow_nan=False) + "\n"  # ASCII: some separators of Unicode break lines for some readers


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a line for each prediction; the file appears whole or not at all."""
    write_atomic(path, "".join(map(as_line, predictions)))


def read_predictions(path: Path) -> tuple[list[Prediction], list[DataError]]:
    """The predictions of a file in its order, and a problem for each line that holds none, or one that came before.

    A line may be torn, where a process was killed while it wrote; the others are good.

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
            again = (
                f"completion {one['completion_index']} of sample {one['sample_id']} is there twice; the first counts"
            )
            problems.append(DataError(again, source))
        else:
            found[key(one)] = one
    return list(found.values()), problems


def _read(line: bytes, source: str) -> Prediction | DataError:
    try:
        one = parse_object(line, source)
    except DataError as error:
        return error
    problem = problem_of(one, _FIELDS)
    return one if problem is None else DataError(problem, source)
