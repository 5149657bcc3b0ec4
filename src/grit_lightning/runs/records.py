"""Conversion of completions to JSON records and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grit_lightning import grounding
from grit_lightning.types import Box, Completion, Group, Prompt, Sample, Score, Size

if TYPE_CHECKING:
    from torch import Tensor


def records(
    step: int, groups: Sequence[Group], scores_P_G: Sequence[Sequence[Score]], advantages_P_G: Tensor
) -> list[dict[str, Any]]:
    """Return one JSON-ready record for each completion of ``groups``.

    A record contains everything that the rewards read (``from_record`` restores it) and, for human readers, the answer
    and boxes parsed from the text. Each entry of ``boxes`` has ``model`` (xyxy in ``box_space``, as written),
    ``pixels`` (xyxy in original pixels), ``label``, ``form`` and ``valid`` (ordered, inside the image, no repetition
    of an earlier box). Numbers that are not finite, such as a coordinate of 400 digits, become ``null``, and so do
    reward components that could not be scored.

    Args:
        step: the optimizer step for which the completions were sampled, counted from 1 as in checkpoint names.
        groups: P groups of one prompt and G completions each.
        scores_P_G: scores of each group's completions.
        advantages_P_G: advantages of the completions, shape (P, G).
    """
    return [
        {
            "step": step,
            "slot": group.slot,
            **prompt_fields(group.prompt),
            "completion_index": index,
            **completion_fields(completion, group.prompt.sample.size),
            **_score_fields(score),
            "advantage": _finite(advantage),
        }
        for group, scores_G, advantages_G in zip(groups, scores_P_G, advantages_P_G.tolist(), strict=True)
        for index, (completion, score, advantage) in enumerate(
            zip(group.completions, scores_G, advantages_G, strict=True)
        )
    ]


def from_record(record: dict[str, Any]) -> tuple[Sample, Completion]:
    """Restore the sample and the completion that the rewards read, as they were when the record was made."""
    sample = Sample(
        id=record["sample_id"],
        question=record["question"],
        answer=record["answer"],
        image=Path(record["image"]),
        size=_size(record["image_size"]),
        boxes=tuple(_box(box) for box in record["reference_boxes"]),
        dataset=record["dataset"],
        split=record["split"],
        source=record["source"],
        completion=record.get("reference_completion"),  # absent in older records
    )
    completion = Completion(
        token_ids=tuple(record["token_ids"]),
        text=record["text"],
        finish=record["finish"],
        box_space=_size(record["box_space"]),
    )
    return sample, completion


def prompt_fields(prompt: Prompt) -> dict[str, Any]:
    """Return the fields of a record that describe the prompt and its sample."""
    sample = prompt.sample
    return {
        "sample_id": sample.id,
        "dataset": sample.dataset,
        "split": sample.split,
        "source": sample.source,
        "question": sample.question,
        "answer": sample.answer,
        "image": str(sample.image),
        "image_size": list(sample.size),
        "reference_boxes": [list(box) for box in sample.boxes],
        "reference_completion": sample.completion,
        "prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
    }


def completion_fields(completion: Completion, size: Size) -> dict[str, Any]:
    """Return the fields of a record that describe the completion; see :func:`records`.

    Args:
        completion: the completion.
        size: ``(width, height)`` of the image in original pixels.
    """
    parsed = grounding.parse(completion.text)
    written = [found.box for found in parsed.boxes]
    valid = grounding.valid_boxes(written, completion.box_space)
    return {
        "text": completion.text,
        "finish": completion.finish,
        "num_tokens": len(completion.token_ids),
        "token_ids": list(completion.token_ids),
        "parsed_answer": None if parsed.answer is None else parsed.answer.strip(),
        "box_space": list(completion.box_space),
        "boxes": [
            {
                "label": found.label,
                "form": found.form,
                "model": [_finite(x) for x in found.box],
                "pixels": [_finite(x) for x in grounding.rescale(found.box, source=completion.box_space, target=size)],
                "valid": is_valid,
            }
            for found, is_valid in zip(parsed.boxes, valid, strict=True)
        ],
    }


def _score_fields(score: Score) -> dict[str, Any]:
    return {
        "rewards": {name: _finite(value) for name, value in score.components.items()},
        "reward": _finite(score.total),
        "reward_errors": dict(score.errors),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _size(values: Sequence[int]) -> Size:
    width, height = values
    return width, height


def _box(values: Sequence[float]) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
