"""Tests of questions about scenes and their answers."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from grit_lightning.data.shapes.questions import KINDS, RELATIONS
from grit_lightning.data.shapes.scenes import (
    COLOURS,
    DIFFICULTIES,
    FORMS,
    HARD,
    STANDARD,
    Shape,
)
from support.shapes import questions


def test_counts_are_right_and_balanced():
    asked = questions("tallyqa", 120)
    assert Counter(question.answer for question in asked) == dict.fromkeys(range(STANDARD.max_count + 1), 30)
    for question in asked:
        words = re.fullmatch(r"How many (.+)s are there\?", question.text)[1].split()
        matching = [s for s in question.scene.shapes if all(word in ("shape", *s.label.split()) for word in words)]
        assert len(matching) == question.answer
        assert sorted(question.targets) == sorted(matching)


def test_spatial_answers_are_right_and_balanced():
    asked = questions("vsr", 200)
    assert Counter(q.answer if q.answer in ("Yes", "No") else "what" for q in asked) == {
        "Yes": 50,
        "No": 50,
        "what": 100,
    }
    for question in asked:
        subject, reference = question.targets
        by_label = {shape.label: shape for shape in question.scene.shapes}
        assert len(by_label) == len(question.scene.shapes)  # every name means one object
        if question.answer in ("Yes", "No"):
            match = re.fullmatch(r"Is the (\w+ \w+) (.+) the (\w+ \w+)\?", question.text)
            assert (match[1], match[3]) == (subject.label, reference.label)
            assert is_beyond(match[2], subject, reference) == (question.answer == "Yes")
            assert is_beyond(match[2], reference, subject) == (question.answer == "No")
        else:
            match = re.fullmatch(r"What is (.+) the (\w+ \w+)\?", question.text)
            assert (question.answer, match[2]) == (subject.label, reference.label)
            answers = [shape for shape in question.scene.shapes if is_beyond(match[1], shape, reference)]
            assert answers == [subject]


def is_beyond(phrase: str, subject: Shape, reference: Shape) -> bool:
    """Tell from the boxes alone whether the relation holds: the boxes do not overlap along its axis."""
    (a1, b1, a2, b2), (u1, v1, u2, v2) = subject.box, reference.box
    return {"left": a2 <= u1, "right": a1 >= u2, "above": b2 <= v1, "below": b1 >= v2}[
        re.search("left|right|above|below", phrase)[0]
    ]


@pytest.mark.parametrize("difficulty", DIFFICULTIES.values(), ids=DIFFICULTIES)
def test_scenes_have_the_requested_difficulty(difficulty):
    counting, spatial = (questions(kind, 60, difficulty=difficulty) for kind in KINDS)
    assert {shape.side for q in (*counting, *spatial) for shape in q.scene.shapes} == set(difficulty.sides_px)
    assert {len(q.scene.shapes) for q in spatial} == set(difficulty.spatial_shapes)
    subjects = [q.subject.removesuffix("s").split() for q in counting]
    by = Counter("form" if len(words) == 1 else "colour" if words[1] == "shape" else "both" for words in subjects)
    wanted = Counter(difficulty.counted_by)
    for name, times in wanted.items():
        assert by[name] / 60 == pytest.approx(times / wanted.total(), abs=0.2)


@pytest.mark.parametrize("difficulty", [STANDARD, HARD], ids=["standard", "hard"])
def test_the_number_of_shapes_does_not_reveal_the_counted_number(difficulty):
    totals: dict[int, Counter] = {}
    for question in questions("tallyqa", 400, difficulty=difficulty):
        totals.setdefault(question.answer, Counter())[len(question.scene.shapes)] += 1
    assert set(totals) == set(range(difficulty.max_count + 1))
    for seen in totals.values():
        assert set(seen) == set(difficulty.counting_shapes)
        assert max(seen.values()) < 2 * min(seen.values())


def test_all_relations_forms_and_colours_occur():
    text = " ".join(question.text for kind in KINDS for question in questions(kind, 200))
    assert all(relation.is_phrase in text and relation.what_phrase in text for relation in RELATIONS)
    assert all(re.search(rf"\b{word}s?\b", text) for word in (*COLOURS, *FORMS, "shape"))
