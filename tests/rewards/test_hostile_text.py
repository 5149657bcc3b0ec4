"""Tests with arbitrary text: no exception, no reward out of bounds, and linear time."""

import itertools
import random
import time
import unicodedata
from functools import partial

import pytest

from grit_lightning import rewards
from grit_lightning.grounding import TAGS, find_boxes, normalise, parse, plain_boxes
from grit_lightning.judge.exact import ExactMatch

PIECES = (
    *TAGS, *TAGS, "<", ">", "</", "<think", "answer>", "<ref>", "</ref>", "<box>", "</box>", "[[", "]]", "{", "}",
    "[", "]", '{"bbox_2d": [', '"bbox_2d"', '"label": "', '"', "\\", ":", ",", ", ", ".", "-", "'", "_", " ", "\n",
    "\t", "\0", "1", "22", "1, 2, 3, 4", "9, 9, 1, 1", "1,000", "0.5", "9" * 400, "1e200", "a", "the", "two",
    "twenty", "cat", "É", "ß", "İ", "٣", "²", "猫", "🐈", "\u0301", "\u202e", "\ud800",
    "{'bbox_2d': [", "'label': '", "(1,2),(3,4)", "(", ")", "<|box_start|>", "<|box_end|>", "-1", "2.5", "−",
    "NaN", "$",
)  # fmt: skip

# Plain partials with the values of conf/reward/grit.yaml: Hydra's own check at each call would take most of the time.
COMPONENTS = {
    "answer_match": partial(rewards.answer_match, judge=ExactMatch(), threshold=0.0),
    "answer_bleu": partial(rewards.answer_bleu, size=0.1),
    "answer_format": partial(rewards.answer_format, present=0.25, once=0.25),
    "think_rethink": partial(rewards.think_rethink, tag=0.1, content=0.1, min_words=2),
    "grounded_region": partial(rewards.grounded_region, any_box=0.5, count_match=1.0, counting_datasets=["tallyqa"]),
    "repetition": partial(rewards.repetition, size=0.5, word_ngram=8, token_ngram=8),
    "box_valid": rewards.box_valid,
    "box_iou": rewards.box_iou,
    "box_giou": rewards.box_giou,
    "length_budget": partial(rewards.length_budget, limit=40, soft=0.5),
    "digit_share": rewards.digit_share,
}
MAXIMA = {"answer_bleu": 0.1, "answer_format": 0.5, "think_rethink": 0.5, "grounded_region": 1.5, "repetition": 0.5}
MINIMA = {"repetition": -0.5, "box_giou": -1.0}


def hostile(draw):
    pieces = draw.choices(PIECES, k=draw.randrange(30))
    if draw.random() < 0.2:  # chance alone would never set the six tags in order
        return "".join(tag + "".join(part for part in pieces[i::6] if part not in TAGS) for i, tag in enumerate(TAGS))
    return "".join(pieces)


def test_any_text_is_parsed_into_consistent_sections_and_boxes():
    draw = random.Random(0)
    well_formed = 0
    for _ in range(20_000):
        text = hostile(draw)
        grounded = parse(text)
        assert (grounded.answer is None) == ("<answer>" not in text)
        assert (grounded.think is None) == ("<think>" not in text)
        assert grounded.well_formed == (
            [text.count(tag) for tag in TAGS] == [1] * 6 and sorted(TAGS, key=text.index) == list(TAGS)
        )
        well_formed += grounded.well_formed
        found = find_boxes(text)
        spans = [(f.start, f.end) for f in found]
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), text  # in order, none twice
        plain = normalise(text)
        assert plain == " ".join(plain.split()) == normalise(unicodedata.normalize("NFD", text)), text
    assert 1_000 < well_formed < 10_000  # both sides of the rule were met


def test_no_text_makes_a_component_fail_or_leave_its_bounds(make_sample, make_completion):
    scorer = rewards.Rewards({name: {"weight": 1.0, "fn": fn} for name, fn in COMPONENTS.items()})
    draw = random.Random(1)
    seen = {name: set() for name in COMPONENTS}
    for _ in range(20_000):
        text = hostile(draw)
        ids = tuple(draw.randrange(3) for _ in range(draw.randrange(1, 40)))
        sample = make_sample(draw.choice(["2", "0", "yes", "", "9" * 50]), boxes=((0.0, 0.0, 9.0, 9.0),))
        score = scorer.score(sample, make_completion(text, ids))
        assert score.errors == {}, text
        for name, value in score.components.items():
            assert MINIMA.get(name, 0.0) <= value <= MAXIMA.get(name, 1.0) + 1e-12, (name, text)
            seen[name].add(value)
    assert all(len(values) > 1 for values in seen.values()), seen  # no bound was kept by a constant


GROWING = {
    "angles": "<",
    "open tags": "<think>",
    "closed tags": "</answer>",
    "nested tags": "<answer><think>",
    "sections": "<think>a</think><rethink>b</rethink><answer>c</answer>",
    "corners": "(1,2),",
    "open corners": "(1,",
    "spaced corners": "(1   ,   ",
    "box tags": "<|box_start|>(1,2),(3,4)<|box_end|>",
    "open box tags": "<|object_ref_start|>a<|object_ref_end|><|box_start|>",
    "lists": "{'bbox_2d': [[1, 2, 3, 4], [5, 6, 7, 8]]}",
    "keys": "'bbox_2d': [",
    "open labels": "{'label': '\\",
    "times": "1:",
    "braces": "{",
    "open objects": '{"bbox_2d": [',
    "objects": '{"bbox_2d": [1, 2, 3, 4]}',
    "escaped quotes": '{"\\"',
    "brackets": '{"bbox_2d":[[[',
    "references": "<ref>a</ref><box>",
    "open references": "<ref>a</ref> ",
    "digits": "1",
    "digits and commas": "1,",
    "digits, commas and spaces": "1,    ",
    "three of four": "1, 2, 3, x",
    "thousands": "1,000",
    "decimals": "1.",
    "signs": "-",
    "apostrophes": "a'",
    "spaces": " ",
    "number words": "twenty one ",
    "articles": "the a ",
    "asterisks": "*",
    "marks": "e\u0301",
    "operators": "1 - ",
}


@pytest.mark.parametrize("read", [parse, plain_boxes, find_boxes, normalise], ids=lambda read: read.__name__)
@pytest.mark.parametrize("piece", GROWING.values(), ids=GROWING)
def test_reading_takes_linear_time(read, piece):
    """Ten times the text takes about ten times the time: quadratic reading would take a hundred times."""

    def seconds(length):
        text = "<answer>" + piece * (length // len(piece)) + "a"
        times = []
        for _ in range(3):
            start = time.process_time()
            read(text)
            times.append(time.process_time() - start)
        return min(times)

    # The floor keeps the clock's grain out: below it, 100,000 characters are read in milliseconds whatever the ratio.
    assert seconds(100_000) < 35 * max(seconds(10_000), 5e-4)
