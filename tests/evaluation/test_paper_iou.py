"""Tests of ``paper_iou`` against a count of pixels, on 50 cases drawn by hand on a grid of 40 × 30 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grit_lightning.evaluation.completion_metrics import paper_iou
from support.predicted import record

WIDTH, HEIGHT = 40, 30

Boxes = list[list[int]]

# (text of the completion, areas that it covers as GRIT's script reads it, reference boxes)
CASES: list[tuple[str, Boxes, Boxes]] = [
    # one box: equal, apart, touching, inside, around, shifted
    ("[1, 2, 11, 12]", [[1, 2, 11, 12]], [[1, 2, 11, 12]]),
    ("[1, 2, 11, 12]", [[1, 2, 11, 12]], [[20, 15, 30, 25]]),
    ("[0, 0, 10, 10]", [[0, 0, 10, 10]], [[10, 0, 20, 10]]),
    ("[4, 4, 8, 8]", [[4, 4, 8, 8]], [[0, 0, 20, 20]]),
    ("[0, 0, 20, 20]", [[0, 0, 20, 20]], [[4, 4, 8, 8]]),
    ("[5, 5, 15, 15]", [[5, 5, 15, 15]], [[10, 10, 20, 20]]),
    ("[0, 0, 40, 30]", [[0, 0, 40, 30]], [[1, 1, 2, 2]]),
    ("[3, 0, 4, 30]", [[3, 0, 4, 30]], [[0, 3, 40, 4]]),
    # forms: JSON, without brackets, tags, spaces, lines
    ('{"bbox_2d": [2, 3, 9, 9]}', [[2, 3, 9, 9]], [[2, 3, 9, 9]]),
    ('{"bbox_2d": [2, 3, 9, 9], "label": "cat"}', [[2, 3, 9, 9]], [[2, 3, 10, 9]]),
    ("at 2, 3, 9, 9 there", [[2, 3, 9, 9]], [[3, 3, 9, 9]]),
    ("(2,3,9,9)", [[2, 3, 9, 9]], [[2, 3, 9, 8]]),
    ("<box>[[2, 3, 9, 9]]</box>", [[2, 3, 9, 9]], [[1, 3, 9, 9]]),
    ("[2,  3,\\t9, 9]".replace("\\t", "\t"), [[2, 3, 9, 9]], [[2, 4, 9, 9]]),
    ("[2,\n3,\n9,\n9]", [[2, 3, 9, 9]], [[2, 3, 9, 9]]),
    ("[02, 3, 09, 9]", [[2, 3, 9, 9]], [[2, 3, 9, 9]]),
    # what is no run of four whole numbers
    ("(2, 3), (9, 9)", [], [[2, 3, 9, 9]]),
    ("<|box_start|>(2,3),(9,9)<|box_end|>", [], [[2, 3, 9, 9]]),
    ("[2, 3, 9]", [], [[2, 3, 9, 9]]),
    ("2 3 9 9", [], [[2, 3, 9, 9]]),
    ("[2; 3; 9; 9]", [], [[2, 3, 9, 9]]),
    ("no box at all", [], [[2, 3, 9, 9]]),
    ("", [], [[2, 3, 9, 9]]),
    ("[a2, 3, 9, 9b]", [], [[2, 3, 9, 9]]),
    # quirks: numbers that are no boxes count, in pairs of four from the left
    ("1, 2, 3, 4, 5, 6, 7, 8", [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4]]),
    ("[1, 2, 3, 4, 5]", [[1, 2, 3, 4]], [[1, 2, 3, 4]]),
    ("the lottery numbers 7, 12, 23, 29", [[7, 12, 23, 29]], [[0, 0, 10, 10]]),
    ("in 12, 13, 14, 15 of them", [[12, 13, 14, 15]], [[12, 13, 14, 15]]),
    # decimals: the fraction of the first number is read, and of the last it is not
    ("[2.5, 3, 9, 9]", [[5, 3, 9, 9]], [[5, 3, 9, 9]]),
    ("[2, 3, 9, 9.5]", [[2, 3, 9, 9]], [[2, 3, 9, 9]]),
    ("[2, 3.5, 9, 9]", [], [[2, 3, 9, 9]]),
    ("[-2, 3, 9, 9]", [[2, 3, 9, 9]], [[2, 3, 9, 9]]),
    ("[2, -3, 9, 9]", [], [[2, 3, 9, 9]]),
    # corners in the wrong order and empty boxes cover nothing
    ("[9, 9, 2, 3]", [], [[2, 3, 9, 9]]),
    ("[9, 3, 2, 9]", [], [[2, 3, 9, 9]]),
    ("[5, 5, 5, 9]", [], [[2, 3, 9, 9]]),
    ("[0, 0, 0, 0]", [], [[2, 3, 9, 9]]),
    # several boxes: the union counts, once
    ("[0, 0, 10, 10] [10, 0, 20, 10]", [[0, 0, 10, 10], [10, 0, 20, 10]], [[0, 0, 20, 10]]),
    ("[0, 0, 10, 10] [5, 5, 15, 15]", [[0, 0, 10, 10], [5, 5, 15, 15]], [[0, 0, 15, 15]]),
    ("[0, 0, 10, 10] [0, 0, 10, 10]", [[0, 0, 10, 10]], [[0, 0, 10, 10]]),
    ("[0, 0, 30, 30] [5, 5, 6, 6]", [[0, 0, 30, 30]], [[5, 5, 6, 6]]),
    ("[1, 1, 5, 5] [9, 9, 3, 3]", [[1, 1, 5, 5]], [[1, 1, 5, 5]]),
    # several reference boxes
    ("[0, 0, 20, 10]", [[0, 0, 20, 10]], [[0, 0, 10, 10], [10, 0, 20, 10]]),
    ("[0, 0, 10, 10]", [[0, 0, 10, 10]], [[0, 0, 10, 10], [20, 20, 30, 30]]),
    ("[0, 0, 10, 10] [20, 20, 30, 30]", [[0, 0, 10, 10], [20, 20, 30, 30]], [[0, 0, 10, 10], [20, 20, 30, 30]]),
    ("[2, 2, 8, 8] [12, 2, 18, 8]", [[2, 2, 8, 8], [12, 2, 18, 8]], [[0, 0, 10, 10], [10, 0, 20, 10]]),
    ("[0, 0, 12, 12]", [[0, 0, 12, 12]], [[0, 0, 8, 8], [4, 4, 12, 12]]),
    # not rescaled: the record's model space is twice as wide as the image, and it does not matter
    ("[10, 5, 20, 15]", [[10, 5, 20, 15]], [[10, 5, 20, 15]]),
    # boxes in the answer and in the reasoning count alike
    (
        "<think> [1, 1, 9, 9] </think> <answer> 20, 20, 30, 30 </answer>",
        [[1, 1, 9, 9], [20, 20, 30, 30]],
        [[1, 1, 9, 9]],
    ),
    ("<answer> [1, 1, 9, 9] </answer>", [[1, 1, 9, 9]], [[1, 1, 9, 9]]),
]


def pixels(boxes: Boxes) -> np.ndarray:
    covered = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        covered[y1:y2, x1:x2] = True
    return covered


def answered(text: str, reference: Boxes, **changes: Any) -> dict[str, Any]:
    return record(text, boxes=tuple(map(tuple, reference))) | changes


def test_there_are_fifty_cases() -> None:
    assert len(CASES) == 50


@pytest.mark.parametrize(("text", "written", "reference"), CASES)
def test_it_equals_a_count_of_pixels(text: str, written: Boxes, reference: Boxes) -> None:
    a, b = pixels(written), pixels(reference)
    assert paper_iou(answered(text, reference)) == pytest.approx((a & b).sum() / (a | b).sum(), abs=1e-12)


def test_it_is_not_defined_without_reference_boxes_and_for_several_images() -> None:
    assert paper_iou(answered("[1, 2, 3, 4]", [])) is None
    more = [{"image": "y.png", "image_size": [10, 10]}]
    assert paper_iou(answered("[1, 2, 3, 4]", [[1, 2, 3, 4]], more_images=more)) is None


def test_numbers_outside_the_image_count_as_they_are() -> None:
    value = paper_iou(answered("[0, 0, 1000, 1000]", [[0, 0, 100, 100]]))
    assert value == pytest.approx(0.01)
