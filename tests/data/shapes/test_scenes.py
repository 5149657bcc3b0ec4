"""Tests of the layouts of the shapes world and of their splits."""

from __future__ import annotations

from itertools import permutations
from random import Random

from grit_lightning.data.shapes.drawing import draw_scene
from grit_lightning.data.shapes.questions import KINDS, make_question
from grit_lightning.data.shapes.scenes import (
    LATTICE_PX,
    MARGIN_PX,
    image_split,
    layout_split,
    make_scene,
)
from support.shapes import questions


def test_training_and_held_out_examples_share_no_image_and_no_layout():
    seen = {"train": set(), "heldout": set()}
    for split, layouts in seen.items():
        for kind in KINDS:
            for question in questions(kind, 100, split):
                assert layout_split(question.scene.size, question.scene.shapes) == split
                assert image_split(draw_scene(question.scene)) == split
                layouts.add((question.scene.size, frozenset(question.scene.shapes)))
    assert len(seen["train"]) > 190  # they do not repeat themselves either
    assert not seen["train"] & seen["heldout"]


def test_the_split_of_a_layout_does_not_depend_on_the_order_of_its_objects():
    splits = []
    for number in range(20):
        scene = make_scene(Random(number), [("red", "triangle"), ("blue", "circle"), ("green", "square")])
        found = {layout_split(scene.size, shapes) for shapes in permutations(scene.shapes)}
        assert len(found) == 1, scene
        splits += found
    assert set(splits) == {"train", "heldout"}


def test_objects_keep_their_distance():
    for index in range(100):
        scene = make_question(3, index, "tallyqa", "train").scene
        boxes = [shape.box for shape in scene.shapes]
        assert all(value % LATTICE_PX == 0 for box in boxes for value in box)
        for number, (x1, y1, x2, y2) in enumerate(boxes):
            assert min(x1, y1, scene.size[0] - x2, scene.size[1] - y2) >= MARGIN_PX
            for u1, v1, u2, v2 in boxes[:number]:
                assert max(u1 - x2, x1 - u2, v1 - y2, y1 - v2) >= MARGIN_PX
