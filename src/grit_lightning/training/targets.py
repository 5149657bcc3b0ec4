"""The text that supervised fine-tuning teaches: a sample's own completion, or one built from its boxes."""

from __future__ import annotations

import json
import re

from grit_lightning.errors import DataError
from grit_lightning.types import Box, Sample, Size

_NUMBER = r"\d+(?:\.\d+)?"
_BOX = re.compile(rf"(?<![\w.])({_NUMBER}),(\s*)({_NUMBER}),(\s*)({_NUMBER}),(\s*)({_NUMBER})(?![\w.]*\d)")


def target_text(sample: Sample, box_space: Size) -> str:
    """What the model should write for a sample, its boxes as integers of ``box_space``.

    The sample's ``completion``, or else ``<think> … boxes … </think> <rethink> … </rethink> <answer> … </answer>``.

    Raises:
        DataError: the sample has neither a completion nor boxes, and its answer is not 0.
    """
    if sample.completion is not None:
        return rescale_boxes(sample.completion, source=sample.size, target=box_space)
    if not sample.boxes and sample.answer != "0":
        raise DataError("no field 'completion' and no 'bboxs' to build one from", sample.source)
    boxes = ", ".join(map(_written, sample.boxes))
    think = f"I look for what is asked: {boxes}." if boxes else "I look for what is asked and find none."
    count = len(sample.boxes)
    rethink = "There is 1 box." if count == 1 else f"There are {count} boxes."
    text = f"<think> {think} </think> <rethink> {rethink} </rethink> <answer> {sample.answer} </answer>"
    return rescale_boxes(text, source=sample.size, target=box_space)


def rescale_boxes(text: str, *, source: Size, target: Size) -> str:
    """The text with every four numbers in a row, separated by commas, scaled and rounded to integers.

    Args:
        text: any text; what stands between the numbers stays as it is.
        source: ``(width, height)`` of the space in which the boxes are written.
        target: the same of the space to write them in.
    """

    def scaled(match: re.Match[str]) -> str:
        x1, gap1, y1, gap2, x2, gap3, y2 = match.groups()
        values = (round(float(v) * target[i % 2] / source[i % 2]) for i, v in enumerate((x1, y1, x2, y2)))
        return "{},{gap1}{},{gap2}{},{gap3}{}".format(*values, gap1=gap1, gap2=gap2, gap3=gap3)

    return _BOX.sub(scaled, text)


def _written(box: Box) -> str:
    # Without spaces: half as many tokens.
    return json.dumps({"bbox_2d": box}, separators=(",", ":"))
