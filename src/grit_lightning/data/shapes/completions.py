"""Grounded completions of the shapes world: the answer that a model trained with GRIT is expected to write."""

from __future__ import annotations

import json
from collections.abc import Iterator

from grit_lightning.data.shapes.questions import Question, mixed_question
from grit_lightning.data.shapes.scenes import EARLY, Shape, Split
from grit_lightning.types import Size


def grounded_completion(question: Question, box_space: Size) -> str:
    """Return the correct grounded completion of a question, a pure function of its arguments.

    Form (GRIT, arXiv 2505.15879): ``<think> … red circle {"bbox_2d":[x1,y1,x2,y2]} … </think> <rethink> … </rethink>
    <answer> … </answer>``. Each name precedes its box, so that a model decides what to look for before it writes where
    it is.

    Args:
        question: question to answer.
        box_space: ``(width, height)`` of the space in which boxes are written, as integers: ``question.scene.size`` for
            original pixels, the size of the resized image for Qwen2.5-VL, ``(1000, 1000)`` for per-mille coordinates.
    """
    boxes = ", ".join(f"{s.label} {written_box(s, question.scene.size, box_space)}" for s in question.targets)
    think, rethink = _count_words(question, boxes) if question.kind == "tallyqa" else _place_words(question, boxes)
    return f"<think> {think} </think> <rethink> {rethink} </rethink> <answer> {question.answer} </answer>"


def written_box(shape: Shape, size: Size, box_space: Size) -> str:
    """Return an object's box as JSON, scaled to ``box_space`` and rounded to integers.

    The JSON has no spaces, which halves its tokens.

    Args:
        shape: the object.
        size: ``(width, height)`` of its scene, in pixels.
        box_space: space in which the box is written, as in :func:`grounded_completion`.
    """
    scaled = [round(value * box_space[i % 2] / size[i % 2]) for i, value in enumerate(shape.box)]
    return json.dumps({"bbox_2d": scaled}, separators=(",", ":"))


def corpus(seed: int, count: int, split: Split = "train") -> Iterator[str]:
    """Yield ``count`` texts to train a tokenizer on: questions about early scenes, each with its grounded completion.

    Counting and spatial questions alternate. Early scenes contain all words and object sizes of the shapes world. Boxes
    are in original pixels.
    """
    for index in range(count):
        question = mixed_question(seed, index, split, EARLY)
        yield f"{question.text}\n{grounded_completion(question, question.scene.size)}"


def _count_words(question: Question, boxes: str) -> tuple[str, str]:
    count = question.answer
    think = f"I look for {question.subject}: {boxes}." if boxes else f"I look for {question.subject} and find none."
    return think, "There is 1." if count == 1 else f"There are {count}."


def _place_words(question: Question, boxes: str) -> tuple[str, str]:
    subject, reference = (shape.label for shape in question.targets)
    negation = "not " if question.answer == "No" else ""
    return f"I compare {boxes}.", f"The {subject} is {negation}{question.subject} the {reference}."
