"""Stored completions as a page shows them: text in parts, some of which are boxes, and boxes on the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape

from grit_lightning import grounding
from grit_lightning.report.pictures import Picture
from grit_lightning.runs.records import placed_boxes, regions_of
from grit_lightning.system.printable import printable_lines

_LONGEST_TEXT = 6000
"""Characters of a completion that are shown."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a completion's text; ``box`` is the index of the box that it writes, or ``None``."""

    text: str
    box: int | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A box on an image, in original pixels, kept near the image.

    Attributes:
        index: index of the box in the completion; that of a reference box in the sample.
        x, y, width, height: its place.
        label: its label.
        valid: whether it is ordered, inside the image and no repetition.
    """

    index: int
    x: float
    y: float
    width: float
    height: float
    label: str
    valid: bool


@dataclass(frozen=True, slots=True)
class View:
    """An image with the boxes on it."""

    picture: Picture
    written: list[Drawn]
    reference: list[Drawn]


@dataclass(frozen=True, slots=True)
class Shown:
    """A completion as it is shown.

    Attributes:
        parts: its text.
        more: characters that are not shown.
        views: its images.
        answer: its answer.
        right: whether the judge scored it above 0; ``None`` if unscored.
        invalid: number of invalid boxes.
        values: named values to list below the text.
        reward, advantage: for sorting; ``None`` where there is none.
        finish, tokens: how it ended, and its length.
    """

    parts: list[Part]
    more: int
    views: list[View]
    answer: str
    right: bool | None
    invalid: int
    values: list[tuple[str, str]]
    reward: float | None
    advantage: float | None
    finish: str
    tokens: int


def shown(record: Mapping[str, Any], pictures: Sequence[Picture]) -> Shown:
    """Return what a page shows of a stored rollout or prediction.

    Args:
        record: a record of ``runs.records``.
        pictures: the pictures of its images.
    """
    text = str(record["text"])
    scores = record.get("rewards") or record.get("scores") or {}
    judged = scores.get("answer_score", scores.get("answer_match", scores.get("judge")))
    return Shown(
        parts=parts(text[:_LONGEST_TEXT]),
        more=max(0, len(text) - _LONGEST_TEXT),
        views=views(record, pictures),
        answer=str(record.get("parsed_answer") or ""),
        right=None if judged is None else judged > 0,
        invalid=sum(not box["valid"] for box in record["boxes"]),
        values=score_texts(scores),
        reward=record.get("reward"),
        advantage=record.get("advantage"),
        finish=str(record["finish"]),
        tokens=int(record["num_tokens"]),
    )


def score_texts(scores: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Return each score with its name as text; one that could not be computed is ``unscored``."""
    return [(str(name), "unscored" if value is None else f"{value:.3g}") for name, value in scores.items()]


def html_size(record: Mapping[str, Any]) -> int:
    """Return about how many bytes of HTML a completion takes, without its image."""
    return 1200 + len(escape(record["text"][:_LONGEST_TEXT])) + 250 * len(record["boxes"])


def parts(text: str) -> list[Part]:
    """Split a completion's text at its boxes; characters that are not printable are escaped."""
    found, done = [], 0
    for index, box in enumerate(grounding.parse(text).boxes):
        if box.start < done:
            continue
        found += [Part(text[done : box.start], None), Part(text[box.start : box.end], index)]
        done = box.end
    found.append(Part(text[done:], None))
    return [Part(printable_lines(part.text), part.box) for part in found if part.text]


def views(record: Mapping[str, Any], pictures: Sequence[Picture]) -> list[View]:
    """Return each image of a record with the boxes that were written on it and the reference boxes."""
    written, reference = placed_boxes(record), list(enumerate(regions_of(record)))
    entries = record["boxes"]
    return [
        View(
            picture,
            [_drawn(index, box, picture, entries[index].get("label"), entries[index]["valid"])
             for index, box, its in written if its == image],
            [_drawn(index, one.box, picture, one.label, True) for index, one in reference if one.image == image],
        )
        for image, picture in enumerate(pictures)
    ]  # fmt: skip


def _drawn(index: int, box: Sequence[float], picture: Picture, label: Any, valid: bool) -> Drawn:
    width, height = picture.size
    xs = sorted(min(max(float(value), -0.02 * width), 1.02 * width) for value in box[0::2])
    ys = sorted(min(max(float(value), -0.02 * height), 1.02 * height) for value in box[1::2])
    x, y, across, down = (round(value, 2) for value in (xs[0], ys[0], xs[1] - xs[0], ys[1] - ys[0]))
    return Drawn(index, x, y, across, down, "" if label is None else str(label), valid)
