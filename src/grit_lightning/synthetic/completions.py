"""Grounded completions of the shapes world: the answer that a model trained with GRIT is expected to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from grit_lightning.synthetic.questions import Question, mixed_question
from grit_lightning.synthetic.scenes import Shape, Split, pick
from grit_lightning.types import Size


def grounded_completion(question: Question, box_space: Size) -> str:
    """Returns a completion that thinks with boxes, rethinks and answers rightly; a pure function of its arguments.

    Form (GRIT, arXiv 2505.15879): ``<think> … {"bbox_2d": [x1, y1, x2, y2], "label": …} … </think> <rethink> …
    </rethink> <answer> … </answer>``.

    Args:
        question: what is asked.
        box_space: ``(width, height)`` of the space in which boxes are written, as integers: ``question.scene.size`` for
            original pixels, the resized image for Qwen2.5-VL, ``(1000, 1000)`` for per-mille coordinates.
    """
    rng = Random(f"{question.text}/{question.scene}")
    boxes = ", ".join(_pointed_at(shape, question.scene.size, box_space) for shape in question.targets)
    think, rethink = (
        _count_words(question, boxes, rng) if question.kind == "tallyqa" else _place_words(question, boxes, rng)
    )
    return f"<think> {think} </think> <rethink> {rethink} </rethink> <answer> {question.answer} </answer>"


def corpus(seed: int, count: int, split: Split = "train") -> Iterator[str]:
    """Yields ``count`` texts, each a question and its grounded completion, both kinds in turn.

    They hold all words of this world, for training a tokenizer; boxes are in original pixels.
    """
    for index in range(count):
        question = mixed_question(seed, index, split)
        yield f"{question.text}\n{grounded_completion(question, question.scene.size)}"


def _pointed_at(shape: Shape, size: Size, box_space: Size) -> str:
    """The object as JSON, its box scaled and rounded to integers."""
    scaled = [round(value * box_space[i % 2] / size[i % 2]) for i, value in enumerate(shape.box)]
    return json.dumps({"bbox_2d": scaled, "label": shape.label})


def _count_words(question: Question, boxes: str, rng: Random) -> tuple[str, str]:
    what, count = question.subject, question.answer
    if not boxes:
        think = pick(rng, (f"I look for {what} and find none.", f"I need to count the {what}. I see no {what}."))
        return think, pick(rng, (f"There are no {what}.", f"No {what} are in the image, so the count is 0."))
    think = pick(rng, (f"I need to count the {what}: {boxes}.", f"I look for {what} and find {boxes}."))
    if count == 1:
        return think, pick(rng, ("There is one box, so the count is 1.", "I found 1 in the image."))
    return think, pick(rng, (f"There are {count} boxes, so the count is {count}.", f"I found {count} in the image."))


def _place_words(question: Question, boxes: str, rng: Random) -> tuple[str, str]:
    subject, reference = (shape.label for shape in question.targets)
    relation = question.subject
    if question.text.startswith("What"):
        think = pick(rng, (f"I look {relation} the {reference}: {boxes}.", f"I compare the objects {boxes}."))
        return think, f"The {subject} is {relation} the {reference}."
    think = pick(rng, (f"I look for the {subject} and the {reference}: {boxes}.", f"I compare the objects {boxes}."))
    negation = "" if question.answer == "Yes" else "not "
    return think, f"The {subject} is {negation}{relation} the {reference}."
