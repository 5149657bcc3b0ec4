"""Tests of the box rewards: GRIT's counting rule by hand, and the strict validity, IoU and GIoU."""

import json
from dataclasses import replace

import pytest

from grit_lightning.rewards.boxes import box_giou, box_iou, box_valid, grounded_region
from grit_lightning.types import Region
from support.samples import several_images

ONE, TWO = "<think> [1, 1, 2, 2] <rethink>", "<think> [1, 1, 2, 2] and 3,3,4,4 <rethink>"


def region(sample, completion, **options):
    return grounded_region(
        sample, completion, **({"any_box": 0.5, "count_match": 1.0, "counting_datasets": ["tallyqa"]} | options)
    )


@pytest.mark.parametrize(
    ("answer", "dataset", "text", "expected"),
    [
        ("2", "tallyqa", TWO, 1.5),
        ("2", "tallyqa", ONE, 0.5),
        ("1", "tallyqa", ONE, 1.5),
        ("0", "tallyqa", "<rethink>", 1.0),  # no box is the right number of boxes
        ("2", "tallyqa", "<rethink>", 0.0),
        ("2", "vsr", TWO, 0.5),
        ("0", "vsr", "<rethink>", 0.0),
        ("2", "tallyqa", "[1, 1, 2, 2] 3,3,4,4", 0.0),  # no <rethink>
        ("0", "tallyqa", "", 0.0),
        ("2", "tallyqa", "<rethink> [1, 1, 2, 2] 3,3,4,4", 0.0),  # after it
        ("1", "tallyqa", f"{ONE} 3,3,4,4 <rethink>", 1.5),  # only what is before the first
        ("two", "tallyqa", TWO, 1.5),
        ("2.0", "tallyqa", TWO, 1.5),
    ],
)
def test_grounded_region_rewards_any_box_and_the_right_number_of_boxes(
    make_sample, make_completion, answer, dataset, text, expected
):
    sample, completion = make_sample(answer, dataset), make_completion(text)
    assert region(sample, completion) == expected
    parts = {0.0: 0, 0.5: 1, 1.0: 10, 1.5: 11}[expected]
    assert region(sample, completion, any_box=1, count_match=10) == parts


def test_the_count_bonus_is_given_on_the_configured_datasets_only(make_sample, make_completion):
    sample, completion = make_sample("2", "mine"), make_completion(TWO)
    assert region(sample, completion) == 0.5
    assert region(sample, completion, counting_datasets=["tallyqa", "mine"]) == 1.5


@pytest.mark.parametrize("answer", ["yes", "2.5", "2 or 3", ""])
def test_defect_2_an_answer_that_is_no_count_earns_no_bonus_and_raises_nothing(make_sample, make_completion, answer):
    assert region(make_sample(answer), make_completion(TWO)) == 0.5


def test_defect_2_each_sample_is_counted_by_its_own_answer(make_sample, make_completion):
    completion = make_completion(TWO)
    values = [region(make_sample(answer), completion) for answer in ("1", "2", "3")]
    assert values == [0.5, 1.5, 0.5]


def test_defect_11_the_parity_rule_takes_any_box_and_the_strict_rules_do_not(make_sample, make_completion):
    # Inverted, repeated, outside: two boxes to the reference's rule.
    completion = make_completion("[9, 9, 1, 1] [999, 0, 9999, 1] <rethink>", box_space=(100, 100))
    sample = make_sample("2", boxes=((1.0, 1.0, 9.0, 9.0),), size=(100, 100))
    assert region(sample, completion) == 1.5
    assert box_valid(sample, completion) == 0.0
    assert box_iou(sample, completion) == 0.0


def test_box_valid_is_a_share_in_the_box_space(make_sample, make_completion):
    text = '{"bbox_2d": [0, 0, 308, 252]} [0, 0, 309, 252] [5, 5, 6, 6] [5, 5, 6, 6] <rethink>'
    # Valid: the first (the whole box space) and the first of the two equal ones. In 640 × 480 the second is too.
    assert box_valid(make_sample(), make_completion(text)) == 0.5
    assert box_valid(make_sample(), make_completion("no box")) == 0.0


def test_box_iou_is_in_original_pixels(make_sample, make_completion):
    # Box space 1000 × 1000, image 640 × 480: [0, 0, 500, 500] is (0, 0, 320, 240).
    completion = make_completion("[0, 0, 500, 500] <rethink>", box_space=(1000, 1000))
    assert box_iou(make_sample(boxes=((0.0, 0.0, 320.0, 240.0),)), completion) == pytest.approx(1.0)
    assert box_iou(make_sample(boxes=((0.0, 0.0, 320.0, 480.0),)), completion) == pytest.approx(0.5)
    assert box_iou(make_sample(boxes=((0.0, 0.0, 320.0, 240.0), (600.0, 0.0, 640.0, 9.0))), completion) == 0.5


def test_box_giou_is_in_original_pixels_and_tells_near_from_far(make_sample, make_completion):
    # Box space 1000 × 1000, image 640 × 480: x by 0.64, y by 0.48.
    sample = make_sample(boxes=((0.0, 0.0, 64.0, 48.0),))

    def value(text):
        return box_giou(sample, make_completion(f"{text} <rethink>", box_space=(1000, 1000)))

    assert value("[0, 0, 100, 100]") == 1.0
    assert value("[100, 0, 200, 100]") == pytest.approx(0.0)  # beside it
    assert value("[900, 0, 1000, 100]") == pytest.approx(-0.8)  # two tenths of the 1000 between their outer sides
    assert value("[0, 0, 1000, 1000]") == pytest.approx(0.01)  # all of the image
    assert value("[100, 100, 0, 0]") == value("no box") == -1.0
    assert value("[0, 0, 100, 100] [0, 0, 100, 100]") == pytest.approx((1 - 1) / 2)  # the second finds no partner


def test_a_box_of_overflowing_area_gets_the_lowest_score(make_sample, make_completion):
    sample = make_sample(boxes=((0.0, 0.0, 64.0, 48.0),))
    for numbers in ("0, 0, 1e200, 1e200", "-1e308, -1e308, 1e308, 1e308", "0, 0, 1e308, 1"):
        completion = make_completion(f'{{"bbox_2d": [{numbers}]}} <rethink>')
        assert box_iou(sample, completion) == pytest.approx(0.0, abs=1e-300)
        assert box_giou(sample, completion) == pytest.approx(-1.0)


def test_without_reference_boxes_iou_and_giou_are_unscored(make_sample, make_completion):
    assert box_iou(make_sample(), make_completion(ONE)) is None
    assert box_giou(make_sample(), make_completion(ONE)) is None


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("-1, 2, 30, 40", 0.0),  # not 1, 2, 30, 40
        ("1.5, 2, 30, 40.5", 1.0),
        ("1, 2, 30, 4000", 0.0),
        ("10, 20, 30, 40, 50", 0.0),
        ("{'bbox_2d': [[1, 2, 30, 40], [-5, 2, 30, 40]]}", 0.5),
        ("<|box_start|>(1,2),(30,40)<|box_end|>", 1.0),
    ],
)
def test_strict_rewards_read_whole_numbers_and_the_parity_rule_its_own(make_sample, make_completion, text, share):
    sample, completion = make_sample("9"), make_completion(f"{text} <rethink>")
    assert box_valid(sample, completion) == share
    assert region(sample, completion) == (0.5 if "(" not in text else 0.0)


def test_boxes_of_several_images_are_matched_within_their_image(make_completion):
    sample = replace(
        several_images("Which?", [(640, 480), (100, 100)]),
        regions=(Region((0.0, 0.0, 320.0, 240.0), 0), Region((0.0, 0.0, 50.0, 50.0), 1)),
    )

    def completion(*boxes):
        text = " ".join(json.dumps({"bbox_2d": box, "image": image}) for box, image in boxes)
        return replace(make_completion(f"{text} <rethink>"), box_spaces=((1000, 1000), (1000, 1000)))

    right = completion(([0, 0, 500, 500], 1), ([0, 0, 500, 500], 2))
    assert box_iou(sample, right) == box_giou(sample, right) == pytest.approx(1.0)
    assert box_valid(sample, right) == 1.0
    swapped = completion(([0, 0, 500, 500], 1), ([0, 0, 500, 500], 1))  # the second belongs to image 2
    assert box_iou(sample, swapped) == pytest.approx(0.5)
    assert box_giou(sample, swapped) == pytest.approx(0.0, abs=1e-3)
    assert box_valid(sample, swapped) == 0.5
    elsewhere = completion(([0, 0, 500, 500], 1), ([0, 0, 500, 500], 3))
    assert box_iou(sample, elsewhere) == pytest.approx(0.5)
    assert box_valid(sample, elsewhere) == 0.5
