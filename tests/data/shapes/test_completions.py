"""Tests of the grounded completions of the shapes world."""

from __future__ import annotations

import json
import re

import pytest

from grit_lightning.data.shapes.completions import corpus, grounded_completion
from grit_lightning.data.shapes.questions import KINDS, make_question
from grit_lightning.data.shapes.scenes import (
    EARLY,
)
from support.shapes import questions


@pytest.mark.parametrize("kind", KINDS)
def test_completions_have_the_form_of_grit_and_point_at_the_targets(kind):
    for question in questions(kind, 60):
        width, height = question.scene.size
        text = grounded_completion(question, (2 * width, 3 * height))
        match = re.fullmatch(r"<think> (.+) </think> <rethink> (.+) </rethink> <answer> (.+) </answer>", text)
        assert match[3] == str(question.answer)
        objects = [(name, json.loads(box)) for name, box in re.findall(r"(\w+ \w+) (\{.*?\})", match[1])]
        assert objects == [
            (s.label, {"bbox_2d": [2 * s.box[0], 3 * s.box[1], 2 * s.box[2], 3 * s.box[3]]}) for s in question.targets
        ]
        assert text == grounded_completion(question, (2 * width, 3 * height))


def test_the_corpus_alternates_both_kinds_of_grounded_answers():
    texts = list(corpus(4, 10))
    assert texts == list(corpus(4, 10))
    first = make_question(4, 0, "tallyqa", "train", EARLY)
    assert texts[0] == f"{first.text}\n{grounded_completion(first, first.scene.size)}"
    assert [text.startswith("How many") for text in texts] == [True, False] * 5
    assert len(set(texts)) == 10
    form = r".+\?\n<think> .+ </think> <rethink> .+ </rethink> <answer> .+ </answer>"
    assert [bool(re.fullmatch(form, text)) for text in texts] == [True] * 10
