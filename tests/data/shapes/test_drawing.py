"""Tests of the drawing of scenes."""

from __future__ import annotations

import numpy as np
import pytest

from grit_lightning.data.shapes.drawing import draw_scene
from grit_lightning.data.shapes.questions import make_question
from grit_lightning.data.shapes.scenes import (
    BACKGROUNDS,
    COLOURS,
    FORMS,
    HARD,
    Scene,
    Shape,
)


def test_the_top_left_pixel_is_background_in_every_scene():
    for index in range(100):
        scene = make_question(1, index, "tallyqa", "train").scene
        assert draw_scene(scene).getpixel((0, 0)) == scene.background


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [*HARD.sides_px, 21, 74])
def test_boxes_enclose_the_drawn_object_tightly(form, side):
    shape = Shape("red", form, 22, 9, side)
    size, background = (112, 100), (100, 250, 100)
    pixels = np.asarray(draw_scene(Scene(size, background, (shape,)))) != np.asarray(
        draw_scene(Scene(size, background, ()))
    )
    rows, columns = np.nonzero(pixels.any(axis=2))
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert drawn == shape.box
    centre = (9 + side // 2, 22 + side // 2)
    assert tuple(np.asarray(draw_scene(Scene(size, background, (shape,))))[centre]) == COLOURS["red"]


def test_the_background_colour_encodes_the_pixel_position():
    picture = np.asarray(draw_scene(Scene((168, 140), (100, 250, 100), ()))).astype(int)
    down, across = np.mgrid[:140, :168]
    assert (picture[..., 0] == 100 + 3 * across // 5).all()
    assert (picture[..., 1] == 250).all()
    assert (picture[..., 2] == 100 + 3 * down // 5).all()


def test_no_background_hides_a_shape():
    shades = [(100 + u, b[1], 100 + v) for b in BACKGROUNDS for u in range(0, 102, 10) for v in range(0, 102, 10)]
    least = min(sum((a - b) ** 2 for a, b in zip(c, s, strict=True)) ** 0.5 for c in COLOURS.values() for s in shades)
    assert least > 60  # of 255 levels
