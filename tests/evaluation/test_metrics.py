"""Tests of the metrics on predictions written by hand, against hand-calculated values and loops."""

from __future__ import annotations

import json
import math
import random
from itertools import combinations, permutations

import pytest

from grit_lightning.evaluation.completion_metrics import (
    count_consistency,
    grounding_iou,
    is_grounded,
    is_right,
    matched_giou,
    matched_iou,
    precision,
    recall,
    union_iou,
)
from grit_lightning.evaluation.metrics import Metrics, answer_entropy, majority_vote, pass_at_k, sample_values, summary
from grit_lightning.evaluation.predictions import Prediction, given_answer
from grit_lightning.runs.records import from_record
from support.predicted import BOX, grounded, record, records


def metrics(ones: list[Prediction]) -> Metrics:
    """Return the overall metrics, with each prediction counted as a separate sample."""
    return summary([one | {"sample_id": str(index)} for index, one in enumerate(ones)])["overall"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (grounded(answer="2"), "2"),
        ("<answer> 1 </answer> <answer> 2 </answer>", "2"),
        ("<think> 3 </think> <answer> two", "two"),
        ("  Two.\n", "Two."),  # a plain prompt
        ("<think> I see 2", "<think> I see 2"),
        ("<answer> </answer> 2", ""),
        ("", ""),
    ],
)
def test_the_answer_is_the_text_of_the_tag_or_else_the_whole_text(text: str, answer: str) -> None:
    assert given_answer(text) == answer
    assert record(text)["parsed_answer"] == answer


def test_a_prediction_records_question_text_scores_and_boxes() -> None:
    one = record(grounded(), tokens=7, finish="length")
    assert (one["sample_id"], one["question"], one["answer"], one["dataset"]) == ("f/1", "How many?", "1", "tallyqa")
    assert (one["image"], one["image_size"], one["reference_boxes"]) == ("x.png", [100, 100], [[0, 0, 50, 50]])
    assert (one["text"], one["num_tokens"], one["finish"]) == (grounded(), 7, "length")
    assert one["scores"] == {"judge": 1.0, "exact_match": 1.0}
    (box,) = one["boxes"]
    assert (box["model"], box["pixels"]) == ([0, 0, 100, 50], [0, 0, 50, 50])
    assert len(one["prompt_sha256"]) == 64
    sample, completion = from_record(one)
    assert (sample.id, completion.text) == ("f/1", grounded())


def test_accuracy_is_the_mean_score_of_judged_samples() -> None:
    raw = iter([0.25, None, float("nan"), 1.0])
    ones = [record(grounded(), judge=lambda *_: next(raw)) for _ in range(4)]
    values = metrics(ones)
    assert values["accuracy"] == pytest.approx(0.625)
    assert (values["unscored"], values["samples"]) == (2, 4)


def test_an_empty_answer_is_wrong_without_asking() -> None:
    asked = []
    one = record("<answer> </answer>", judge=lambda *call: asked.append(call) or 1.0)
    assert (one["scores"]["judge"], asked) == (0.0, [])
    record("<answer> 2 </answer>", answer="3", judge=lambda *call: asked.append(call) or 1.0)
    assert asked == [("How many?", "3", "2")]


@pytest.mark.parametrize(
    ("think", "reference", "expected"),
    [
        (BOX, ((0, 0, 50, 50),), 1.0),
        (BOX, ((0, 0, 50, 50), (50, 50, 100, 100)), 0.5),  # the second is missed
        (BOX, ((0, 0, 100, 50),), 0.5),
        (BOX, ((0, 0, 100, 50), (0, 0, 50, 100)), 0.5),  # one box may serve for both
        (f'{BOX} {{"bbox_2d": [150, 60, 190, 90]}}', ((0, 0, 50, 50),), 1.0),  # the best counts
        ('{"bbox_2d": [100, 50, 0, 0]}', ((0, 0, 50, 50),), 0.0),  # inverted
        (f"{'9' * 400}, 0, 100, 50", ((0, 0, 50, 50),), 0.0),  # infinite
        ("nothing", ((0, 0, 50, 50),), 0.0),
    ],
)
def test_grounding_iou_by_hand(think: str, reference: tuple, expected: float) -> None:
    one = record(grounded(think), boxes=reference)
    assert grounding_iou(one) == pytest.approx(expected)
    nothing_to_find = record(grounded(think), boxes=())
    assert metrics([one, nothing_to_find])["grounding_iou"] == pytest.approx(expected)
    assert metrics([one, record("no", boxes=reference)])["grounding_iou"] == pytest.approx(expected / 2)


def test_boxes_after_the_reasoning_do_not_ground_it() -> None:
    late = f"<think> a </think> <rethink> {BOX} </rethink> <answer> 1 </answer>"
    assert grounding_iou(record(late)) == 0.0
    assert not is_grounded(record(late))


@pytest.mark.parametrize(
    ("text", "dataset", "expected"),
    [
        (grounded(), "tallyqa", True),
        (grounded(answer="7"), "tallyqa", True),  # wrong, but in form
        (grounded(), "vsr", True),
        (grounded("none"), "tallyqa", False),
        (grounded("none", answer="0"), "tallyqa", True),
        (grounded("none", answer="zero"), "tallyqa", True),
        (grounded("none", answer="0"), "vsr", False),
        (grounded(answer="0"), "tallyqa", True),
        (grounded() + "<answer> 1 </answer>", "tallyqa", False),
        (f"<think> {BOX} </think> <answer> 1 </answer>", "tallyqa", False),
        (f"<rethink> {BOX} </rethink> <think> a </think> <answer> 1 </answer>", "tallyqa", False),
        ("0", "tallyqa", False),
    ],
)
def test_grounded_format_needs_all_sections_in_order_and_a_box(text: str, dataset: str, expected: bool) -> None:
    one = record(text, dataset)
    assert is_grounded(one) is expected
    assert metrics([one, record(grounded())])["grounded_format"] == (1 + expected) / 2


@pytest.mark.parametrize(
    ("text", "dataset", "expected"),
    [
        (grounded(), "tallyqa", 1.0),
        (grounded(answer="2"), "tallyqa", 0.0),
        (grounded(f"{BOX} {BOX}", answer="two"), "tallyqa", 1.0),  # its own answer, be it right or not
        (grounded("none", answer="0"), "tallyqa", 1.0),
        (grounded("none", answer="1"), "tallyqa", 0.0),
        (grounded(answer="many"), "tallyqa", None),
        (grounded(answer="1.5"), "tallyqa", None),
        (grounded(), "vsr", None),
        ("0", "tallyqa", 1.0),
        ("3", "tallyqa", 0.0),
    ],
)
def test_count_consistency_compares_boxes_with_the_given_answer(
    text: str, dataset: str, expected: float | None
) -> None:
    assert metrics([record(text, dataset)])["count_consistency"] == expected
    left_out = record(grounded(answer="some"))
    assert metrics([record(text, dataset), left_out])["count_consistency"] == expected


def test_lengths_are_averaged_overall_and_by_dataset() -> None:
    ones = [record("a", tokens=2), record("b", tokens=4, finish="length"), record("c", "vsr", tokens=9)]
    values = summary([one | {"sample_id": str(index)} for index, one in enumerate(ones)])
    assert list(values) == ["overall", "tallyqa", "vsr", "macro"]
    assert [values[name]["tokens"] for name in values] == [5.0, 3.0, 9.0, 6.0]
    assert [values[name]["truncated"] for name in values] == [pytest.approx(1 / 3), 0.5, 0.0, 0.25]
    assert [values[name]["samples"] for name in values] == [3, 2, 1, 3]


def test_without_predictions_every_metric_is_none() -> None:
    values = metrics([])
    assert {value for key, value in values.items() if key not in ("samples", "unscored")} == {None}
    assert (values["samples"], values["unscored"]) == (0, 0)
    json.dumps(summary([]), allow_nan=False)


# ---- boxes, against loops ----


def loop_iou(a: list[float], b: list[float]) -> float:
    """Return the IoU of two xyxy boxes as ``torchvision.ops.box_iou`` defines it."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return wide * high / (areas - wide * high)


def loop_giou(a: list[float], b: list[float]) -> float:
    """Return the GIoU of two xyxy boxes as ``torchvision.ops.generalized_box_iou`` defines it."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - wide * high
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return wide * high / union - (hull - union) / hull


def best_pairs(table: list[list[float]]) -> list[float]:
    """Return the values of the one-to-one pairing with the largest sum, found by trying all pairings."""
    rows, columns = range(len(table)), range(len(table[0]))
    count = min(len(rows), len(columns))
    tried = (
        [table[row][column] for row, column in zip(some, order, strict=True)]
        for some in combinations(rows, count)
        for order in permutations(columns, count)
    )
    return max(tried, key=sum)


def drawn_boxes(draw: random.Random, count: int) -> list[list[int]]:
    boxes = []
    for _ in range(count):
        x, y = draw.randrange(0, 80), draw.randrange(0, 80)
        boxes.append([x, y, x + draw.randrange(5, 100 - x), y + draw.randrange(5, 100 - y)])
    return boxes


def of_boxes(predicted: list[list[int]], reference: list[list[int]]) -> Prediction:
    # Written in a box space that is twice as wide as the image.
    think = " ".join(f'{{"bbox_2d": [{2 * x1}, {y1}, {2 * x2}, {y2}]}}' for x1, y1, x2, y2 in predicted)
    return record(grounded(think), boxes=tuple(map(tuple, reference)))


@pytest.mark.parametrize("seed", range(60))
def test_box_metrics_equal_loops(seed: int) -> None:
    draw = random.Random(seed)
    predicted, reference = drawn_boxes(draw, draw.randint(1, 5)), drawn_boxes(draw, draw.randint(1, 5))
    one = of_boxes(predicted, reference)
    ious = [[loop_iou(p, r) for r in reference] for p in predicted]
    gious = [[loop_giou(p, r) for r in reference] for p in predicted]
    larger = max(len(predicted), len(reference))
    alone = larger - min(len(predicted), len(reference))
    pairs = best_pairs(ious)
    hits = sum(value >= 0.5 for value in pairs)
    assert grounding_iou(one) == pytest.approx(sum(map(max, zip(*ious, strict=True))) / len(reference), abs=1e-12)
    assert matched_iou(one) == pytest.approx(sum(pairs) / larger, abs=1e-12)
    assert matched_giou(one) == pytest.approx((sum(best_pairs(gious)) - alone) / larger, abs=1e-12)
    assert precision(one) == pytest.approx(hits / len(predicted))
    assert recall(one) == pytest.approx(hits / len(reference))
    covered = [[any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in boxes) for x in range(100) for y in range(100)]
               for boxes in (predicted, reference)]  # fmt: skip
    both = sum(a and b for a, b in zip(*covered, strict=True))
    assert union_iou(one) == pytest.approx(both / sum(a or b for a, b in zip(*covered, strict=True)), abs=1e-12)


BOX_METRICS = ("grounding_iou", "matched_iou", "union_iou", "giou", "precision", "recall")


def test_a_sample_without_reference_boxes_has_no_box_metrics() -> None:
    values = metrics([record(grounded(), boxes=())])
    assert {values[name] for name in BOX_METRICS} == {None}
    assert (values["accuracy"], values["box_validity"]) == (1.0, 1.0)


def test_box_metrics_of_a_completion_without_boxes_by_hand() -> None:
    values = metrics([record("no")])
    expected = {"grounding_iou": 0, "matched_iou": 0, "union_iou": 0, "giou": -1, "precision": None, "recall": 0}
    assert {name: values[name] for name in BOX_METRICS} == expected
    assert values["box_validity"] is None


def test_an_infinite_box_counts_as_a_miss() -> None:
    one = record(grounded(f"{BOX} {'9' * 400}, 0, 100, 50"))
    assert (precision(one), recall(one), matched_iou(one)) == (0.5, 1.0, 1.0)
    assert metrics([one])["box_validity"] == 0.5


def test_one_box_around_two_has_full_union_iou_only() -> None:
    one = of_boxes([[0, 0, 40, 20]], [[0, 0, 20, 20], [20, 0, 40, 20]])
    assert (union_iou(one), matched_iou(one), grounding_iou(one)) == (1.0, 0.25, 0.5)


# ---- verdicts ----


def test_accuracy_binarised_accuracy_and_exact_match_by_hand() -> None:
    ones = [record(grounded(answer="one cat"), judge=lambda *_, value=value: value) for value in (0.0, 0.25, 1.0, None)]
    values = metrics(ones)
    assert values["accuracy"] == pytest.approx(1.25 / 3)
    assert values["accuracy_binarised"] == pytest.approx(2 / 3)
    assert values["exact_match"] == 0.0
    assert [is_right(one) for one in ones] == [False, True, True, None]


def test_extra_measures_are_averaged_under_their_names() -> None:
    values = metrics([record(grounded(), measures={"boxes": lambda sample, completion: completion.text.count("bbox")})])
    assert values["boxes"] == 1.0
    failing = record(grounded(), measures={"boxes": lambda sample, completion: 1 / 0})
    assert failing["scores"] == {"judge": 1.0, "exact_match": 1.0, "boxes": None}
    assert metrics([failing])["boxes"] is None


def answers(*given: str) -> list[Prediction]:
    return records([grounded(answer=one) for one in given])  # the right one is 1


@pytest.mark.parametrize(
    ("given", "any_right", "vote", "entropy"),
    [
        (("1", "one", "2"), 1.0, 1.0, math.log(3) - 2 / 3 * math.log(2)),
        (("2", "2", "1"), 1.0, 0.0, math.log(3) - 2 / 3 * math.log(2)),
        (("2", "1"), 1.0, 0.0, math.log(2)),  # of equally frequent ones the first
        (("1", "2"), 1.0, 1.0, math.log(2)),
        (("3", "3"), 0.0, 0.0, 0.0),
    ],
)
def test_pass_at_k_majority_vote_and_entropy_by_hand(
    given: tuple[str, ...], any_right: float, vote: float, entropy: float
) -> None:
    group = answers(*given)
    assert (pass_at_k(group), majority_vote(group)) == (any_right, vote)
    assert answer_entropy(group) == pytest.approx(entropy, abs=1e-12)


def test_a_sample_counts_once_however_many_completions_it_has() -> None:
    values = summary([*answers("1", "1", "1", "2"), record(grounded(answer="2"), sample_id="f/2")])["overall"]
    assert (values["accuracy"], values["pass_at_k"], values["samples"]) == (0.375, 0.5, 2)


def test_unjudged_completions_vote_but_are_neither_right_nor_wrong() -> None:
    raw = iter([None, 0.5, None])
    group = records([grounded(answer="1")] * 3, judge=lambda *_: next(raw))
    assert (pass_at_k(group), majority_vote(group)) == (1.0, 0.5)
    nothing = records([grounded()], judge=lambda *_: None)
    assert (pass_at_k(nothing), majority_vote(nothing)) == (None, None)
    (values,) = sample_values(group)
    assert (values.values["accuracy"], values.unscored) == (0.5, 2)


def test_macro_averages_datasets_and_overall_averages_samples() -> None:
    ones = [record(grounded(), sample_id="a"), *(record("no", "vsr", sample_id=f"b{i}") for i in range(3))]
    values = summary(ones)
    assert (values["overall"]["accuracy"], values["macro"]["accuracy"]) == (0.25, 0.5)
    assert values["macro"]["count_consistency"] == 1.0, "only tallyqa counts"
    assert "macro" not in summary(ones[1:])


def test_metrics_of_completions_in_other_formats_by_hand() -> None:
    internvl = (
        "<think> <ref>cat</ref><box>[[0, 0, 100, 50]]</box> </think> <rethink> so </rethink> <answer> 1 </answer>"
    )
    bare = "The cat at [0, 0, 100, 50]. <answer> 1"
    for text, is_form in ((internvl, True), (bare, False)):
        one = record(text)
        assert (grounding_iou(one), is_right(one), is_grounded(one), count_consistency(one)) == (1.0, True, is_form, 1)


def test_metrics_read_numbers_whole():
    box = "{'bbox_2d': [[-0.5, 0, 100.5, 50]], 'label': 'cat'}"
    one = record(grounded(think=box))
    assert one["boxes"][0]["pixels"] == [-0.25, 0.0, 50.25, 50.0]
    assert one["boxes"][0]["valid"] is False
    assert grounding_iou(one) == pytest.approx(2500 / 2525)
    assert record(grounded(think="0, 0, 100, 50%"))["boxes"] == []


# The box space of these records is 200 × 100 about an image of 100 × 100 pixels.
@pytest.mark.parametrize(
    ("text", "at_50", "mean"),
    [
        ("[0, 0, 100, 50]", 1.0, 1.0),
        ("[0, 0, 100, 30]", 1.0, 0.3),  # IoU 0.6: 0.5, 0.55 and 0.6 are reached
        ("[0, 0, 100, 25]", 1.0, 0.1),
        ("[0, 0, 100, 24]", 0.0, 0.0),
        ("no box", 0.0, 0.0),
        ("[100, 50, 200, 100] [0, 0, 100, 50]", 0.0, 0.0),  # the first box counts
        ("[0, 0, 100, 50] [100, 50, 200, 100]", 1.0, 1.0),
    ],
)
def test_box_accuracy_is_that_of_the_first_box(text: str, at_50: float, mean: float) -> None:
    values = metrics([record(text)])
    assert (values["box_accuracy"], values["box_accuracy_mean"]) == (at_50, pytest.approx(mean))


def test_box_accuracy_is_for_samples_with_one_reference_box() -> None:
    for boxes in ((), ((0, 0, 50, 50), (60, 60, 70, 70))):
        values = metrics([record("[0, 0, 100, 50]", boxes=boxes)])
        assert (values["box_accuracy"], values["box_accuracy_mean"]) == (None, None)


def test_accuracy_is_split_by_whether_the_completion_has_boxes() -> None:
    ones = [record(f"{box} <answer> {answer} </answer>") for box in ("[0, 0, 9, 9]", "") for answer in ("1", "1", "2")]
    values = metrics([*ones, record("[0, 0, 9, 9] <answer> 1 </answer>")])
    assert values["accuracy_with_boxes"] == pytest.approx(3 / 4)
    assert values["accuracy_without_boxes"] == pytest.approx(2 / 3)


def test_option_accuracy_reads_the_option_with_any_judge() -> None:
    said = {"The answer is B.": 1.0, "(A) red": 0.0, "A or B": None, "purple": 0.0}
    for answer, score in said.items():
        one = record(f"<answer> {answer} </answer>", answer="blue") | {"options": ["red", "blue"]}
        assert metrics([one])["option_accuracy"] == score
    assert metrics([record("<answer> B </answer>", answer="blue")])["option_accuracy"] is None
