"""Tests of boxes about several images: each belongs to the image that it names."""

from __future__ import annotations

import pytest

from grit_lightning.grounding.boxes import giou, iou, matched_similarity, union_iou
from grit_lightning.grounding.image_boxes import image_of, in_pixels, on_canvas, valid_written
from grit_lightning.grounding.text_boxes import find_boxes

SPACES = [(100, 100), (50, 200)]


def box(text: str):
    (found,) = find_boxes(text)
    return found


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ('{"bbox_2d": [1, 2, 3, 4]}', 0),
        ('{"bbox_2d": [1, 2, 3, 4], "image": 1}', 0),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "dog", "image": 2}', 1),
        ("{'image': 2, 'bbox_2d': [1, 2, 3, 4]}", 1),
        ('{"bbox_2d": [[1, 2, 3, 4]], "image": 2}', 1),
        ('{"bbox_2d": [1, 2, 3, 4], "image": 3}', None),
        ('{"bbox_2d": [1, 2, 3, 4], "image": 0}', None),
        ('{"bbox_2d": [1, 2, 3, 4], "image": 1.5}', 0),  # no number of an image
        ('{"bbox_2d": [1, 2, 3, 4], "image": "2"}', 0),
        ('{"bbox_2d": [1, 2, 3, 4], "image": 12345678901234567890}', 0),
        ("(1, 2), (3, 4)", 0),
        ("<box>[[1, 2, 3, 4]]</box>", 0),
    ],
)
def test_a_box_belongs_to_the_image_that_it_names(text: str, index: int | None) -> None:
    assert image_of(box(text), 2) == index


def test_boxes_are_valid_within_their_own_image_and_repeated_within_it() -> None:
    text = (
        '{"bbox_2d": [0, 0, 100, 100]} {"bbox_2d": [0, 0, 100, 100], "image": 2} {"bbox_2d": [0, 0, 50, 200], "image":'
        ' 2} {"bbox_2d": [0, 0, 50, 200]} {"bbox_2d": [0, 0, 9, 9], "image": 1} {"bbox_2d": [0, 0, 9, 9], "image": 2}'
        ' {"bbox_2d": [0, 0, 9, 9], "image": 2} {"bbox_2d": [0, 0, 9, 9], "image": 3}'
    )
    assert valid_written(find_boxes(text), SPACES) == (True, False, True, False, True, True, False, False)


def test_pixels_are_those_of_the_image_that_the_box_names() -> None:
    sizes = [(200, 100), (100, 100)]
    assert in_pixels(box('{"bbox_2d": [10, 20, 30, 40]}'), SPACES, sizes) == (20, 20, 60, 40)
    assert in_pixels(box('{"bbox_2d": [10, 20, 30, 40], "image": 2}'), SPACES, sizes) == (20, 10, 60, 20)
    assert in_pixels(box('{"bbox_2d": [10, 20, 30, 40], "image": 3}'), SPACES, sizes) is None


def test_on_the_canvas_boxes_of_different_images_never_overlap_and_those_of_one_keep_their_measures() -> None:
    one, other = (0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 15.0, 10.0)
    assert on_canvas(one, 0) == one
    for image in (0, 1, 7):
        assert iou(on_canvas(one, image), on_canvas(other, image)) == pytest.approx(1 / 3)
    assert iou(on_canvas(one, 0), on_canvas(one, 1)) == 0
    assert giou(on_canvas(one, 0), on_canvas(one, 1)) == pytest.approx(-1)
    # Image 1 is right, image 2 is half right: (1 + 1/3) / 2; their regions: 100 + 50 of 100 + 150 pixels.
    predicted = [on_canvas(one, 0), on_canvas(other, 1)]
    reference = [on_canvas(one, 0), on_canvas(one, 1)]
    assert matched_similarity(predicted, reference, similarity=iou, unmatched=0) == pytest.approx(2 / 3)
    assert union_iou(predicted, reference) == pytest.approx(150 / 250)
