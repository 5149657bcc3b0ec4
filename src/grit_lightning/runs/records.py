"""Conversion of completions to JSON records and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grit_lightning import grounding
from grit_lightning.grounding.image_boxes import image_of, in_pixels, valid_written
from grit_lightning.types import Box, Completion, Group, ImageFile, Prompt, Region, Sample, Score, Size

if TYPE_CHECKING:
    from torch import Tensor


ABSENT_BEFORE: Mapping[str, Any] = {
    "reference_completion": None,
    "more_images": [],
    "more_box_spaces": [],
    "options": [],
    "extra": {},
    "reference_images": [],
    "reference_labels": [],
}
"""Values of the fields that records of earlier versions lack."""


def records(
    step: int, groups: Sequence[Group], scores_P_G: Sequence[Sequence[Score]], advantages_P_G: Tensor
) -> list[dict[str, Any]]:
    """Return one JSON-ready record for each completion of ``groups``.

    A record contains everything that the rewards read (``from_record`` restores it) and, for human readers, the answer
    and boxes parsed from the text. Each entry of ``boxes`` has ``model`` (xyxy in the box space of its image, as
    written), ``pixels`` (xyxy in original pixels of its image), ``image`` (number of its image, from 1; ``null`` if the
    sample has no such image), ``label``, ``form`` and ``valid`` (ordered, inside the image, no repetition of an
    earlier box). Further images are listed in ``more_images`` and ``more_box_spaces``. Numbers that are not finite,
    such as a coordinate of 400 digits, become ``null``, and so do reward components that could not be scored.

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
            **completion_fields(completion, group.prompt.sample.sizes),
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
    record = {**ABSENT_BEFORE, **record}
    sample = Sample(
        id=record["sample_id"],
        question=record["question"],
        answer=record["answer"],
        images=images_of(record),
        regions=regions_of(record),
        dataset=record["dataset"],
        split=record["split"],
        source=record["source"],
        completion=record["reference_completion"],
        options=tuple(record["options"]),
        extra=record["extra"],
    )
    completion = Completion(
        token_ids=tuple(record["token_ids"]),
        text=record["text"],
        finish=record["finish"],
        box_spaces=(_size(record["box_space"]), *map(_size, record["more_box_spaces"])),
    )
    return sample, completion


def images_of(record: Mapping[str, Any]) -> tuple[ImageFile, ...]:
    """Return the images of a record's sample."""
    every = (record, *record.get("more_images", ()))
    return tuple(ImageFile(Path(one["image"]), _size(one["image_size"])) for one in every)


def regions_of(record: Mapping[str, Any]) -> tuple[Region, ...]:
    """Return the reference boxes of a record's sample. Records of earlier versions have one image and no labels."""
    boxes = record["reference_boxes"]
    numbers = record.get("reference_images") or [1] * len(boxes)
    labels = record.get("reference_labels") or [None] * len(boxes)
    return tuple(
        Region(_box(box), number - 1, label) for box, number, label in zip(boxes, numbers, labels, strict=True)
    )


def placed_boxes(record: Mapping[str, Any]) -> list[tuple[int, Box, int]]:
    """Return ``(index, box, image)`` for each written box that lies on an image of the sample.

    The index is that of the entry of ``boxes``; the box is xyxy in original pixels of the image of that index. Boxes
    with a number that is not finite are left out.
    """
    return [
        (index, _box(one["pixels"]), image - 1)
        for index, one in enumerate(record["boxes"])
        if None not in one["pixels"] and (image := one.get("image", 1)) is not None
    ]


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
        "more_images": [{"image": str(one.path), "image_size": list(one.size)} for one in sample.images[1:]],
        "options": list(sample.options),
        "extra": dict(sample.extra),
        "reference_boxes": [list(region.box) for region in sample.regions],
        "reference_images": [region.image + 1 for region in sample.regions],
        "reference_labels": [region.label for region in sample.regions],
        "reference_completion": sample.completion,
        "prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
    }


def completion_fields(completion: Completion, sizes: Sequence[Size]) -> dict[str, Any]:
    """Return the fields of a record that describe the completion; see :func:`records`.

    Args:
        completion: the completion.
        sizes: ``(width, height)`` of each image of the sample in original pixels.
    """
    parsed = grounding.parse(completion.text)
    valid = valid_written(parsed.boxes, completion.box_spaces)
    return {
        "text": completion.text,
        "finish": completion.finish,
        "num_tokens": len(completion.token_ids),
        "token_ids": list(completion.token_ids),
        "parsed_answer": None if parsed.answer is None else parsed.answer.strip(),
        "box_space": list(completion.box_spaces[0]),
        "more_box_spaces": [list(space) for space in completion.box_spaces[1:]],
        "boxes": [
            {
                "label": found.label,
                "form": found.form,
                "image": None if (image := image_of(found, len(sizes))) is None else image + 1,
                "model": [_finite(x) for x in found.box],
                "pixels": [_finite(x) for x in in_pixels(found, completion.box_spaces, sizes) or [None] * 4],
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
    # float: the products of JSON's integers may be too large to be divided as integers.
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
