"""Tests of the lessons on which the bundled model is pre-trained."""

from __future__ import annotations

import json
import re

import pytest

from grit_lightning.data.shapes.lessons import BOXES_FIRST, LISTINGS, Curriculum, lessons
from grit_lightning.data.shapes.scenes import (
    EARLY,
    STANDARD,
    layout_split,
)

PROMPTS = {"grounded": "Q: {question} First, think.", "plain": "{question}"}


def curriculum(**values) -> Curriculum:
    defaults = {"difficulties": ((0, STANDARD),), "listings": 10**6, "prompts": PROMPTS, "grounded_share": 0.25}
    return Curriculum(**(defaults | values))


def test_lessons_are_deterministic_correct_and_from_training_layouts():
    plan = curriculum(few_shapes=((20, 1), (40, 3)), answering=((0, 0.5),), grounded_share=0.5)
    listings = 0
    for index in range(80):
        taught = lessons(3, index, plan)
        assert taught == lessons(3, index, plan)
        (scene,) = {lesson.scene for lesson in taught}
        assert layout_split(scene.size, scene.shapes) == "train"
        assert len(taught) == 3
        if index < 40:
            assert len(scene.shapes) <= (1 if index < 20 else 3)
        boxes = {tuple(shape.box): shape.label for shape in scene.shapes}
        for lesson in taught:
            written = [tuple(json.loads(found)["bbox_2d"]) for found in re.findall(r"\{.*?\}", lesson.completion)]
            assert set(written) <= set(boxes)
            if "every" in lesson.prompt:
                listings += 1
                assert lesson.completion.startswith("{") == (lesson.prompt == BOXES_FIRST)
                named = re.findall(r"(\w+ \w+)(?= \{)|(?<=\} )(\w+ \w+)", lesson.completion)
                assert [first or last for first, last in named] == [boxes[box] for box in written]
                assert sorted(written) == sorted(boxes)
    assert listings >= 80, "two of three lessons before scene 40"


def test_where_lessons_name_exactly_the_matching_shapes():
    plan = curriculum(few_shapes=((100, 5),), answering=((0, 0.5),), grounded_share=0.25)
    nowhere = 0
    for index in range(300):
        lesson = lessons(1, index, plan)[2 if index < 100 else 1]
        words = re.fullmatch(r"Where are the (.+)s\?", lesson.prompt)[1].split()
        matching = [s for s in lesson.scene.shapes if all(word in ("shape", *s.label.split()) for word in words)]
        found = re.findall(r"(\w+ \w+) (\{.*?\})", lesson.completion)
        assert {(name, tuple(json.loads(box)["bbox_2d"])) for name, box in found} == {
            (s.label, s.box) for s in matching
        }
        assert len(found) == len(matching)
        nowhere += lesson.completion == "There are none."
    assert 0 < nowhere < 60


def test_the_shares_of_lesson_kinds_are_as_configured():
    plan = curriculum(few_shapes=(), answering=((0, 0.5),), grounded_share=0.25)
    taught = [lessons(0, index, plan) for index in range(800)]
    assert all(x.prompt.endswith("Think with boxes.") and x.completion.startswith("<think>") for x, *_ in taught)
    third = [lesson for *_, lesson in taught if "every shape" not in lesson.prompt]
    asked = [lesson for lesson in third if lesson.prompt.startswith("Q: ")]
    plain = [lesson for lesson in third if not lesson.prompt.startswith("Q: ")]
    assert 350 < len(third) < 450
    assert 150 < len(asked) < 250
    grounded = sum(lesson.completion.startswith("<think>") for lesson in asked)
    assert grounded / len(asked) == pytest.approx(0.25, abs=0.08)
    assert not any("<" in lesson.completion or "bbox" in lesson.completion for lesson in plain)


def test_the_share_of_answering_lessons_changes_with_the_scenes():
    plan = curriculum(few_shapes=(), answering=((0, 1.0), (100, 0.0)), grounded_share=0.25)
    listed = [lessons(0, index, plan)[2].prompt in LISTINGS for index in range(90, 110)]
    assert listed == [False] * 10 + [True] * 10


def test_difficulty_and_listings_follow_their_schedules():
    plan = curriculum(few_shapes=(), answering=((0, 0.0),), difficulties=((0, EARLY), (100, STANDARD)), listings=50)
    taught = [lessons(0, index, plan) for index in range(200)]
    assert all((third.prompt in LISTINGS) == (index < 50) for index, (*_, third) in enumerate(taught))
    sides = [
        {shape.side for first, *_ in part for shape in first.scene.shapes} for part in (taught[:100], taught[100:])
    ]
    assert sides == [set(EARLY.sides_px), set(STANDARD.sides_px)]
