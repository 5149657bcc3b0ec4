"""Tests of the geometry of boxes against values calculated by hand."""

import itertools
import math
import random

import pytest

from grit_lightning.grounding import area, giou, iou, matched_similarity, rescale, valid_boxes


@pytest.mark.parametrize(
    ("box", "valid"),
    [
        ((0, 0, 100, 50), True),  # the whole image
        ((0, 0, 101, 50), False),
        ((0, 0, 100, 51), False),
        ((-1, 0, 100, 50), False),
        ((0, -1, 100, 50), False),
        ((60, 10, 50, 20), False),  # inverted in x
        ((50, 20, 60, 10), False),  # inverted in y
        ((50, 10, 50, 20), False),  # no width
        ((50, 10, 60, 10), False),  # no height
        ((0, 0, math.inf, 10), False),
    ],
)
def test_a_valid_box_has_positive_area_inside_the_image(box, valid):
    assert valid_boxes([box], (100, 50)) == (valid,)


def test_a_repeated_box_is_valid_once():
    a, b = (0, 0, 1, 1), (0, 0, 2, 2)
    assert valid_boxes([a, b, a, a], (9, 9)) == (True, True, False, False)


def test_area_of_an_inverted_or_infinite_box_is_zero():
    assert area((1, 2, 4, 7)) == 15
    assert [area(box) for box in [(4, 2, 1, 7), (1, 7, 4, 2), (4, 7, 1, 2), (0, 0, math.inf, 1)]] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
        ((0, 0, 10, 10), (2, 2, 4, 4), 4 / 100),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # they touch
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((0, 0, 10, 10), (10, 10, 0, 0), 0.0),  # inverted: two negative sides make no area
        ((0, 0, 10, 10), (-math.inf, 0, math.inf, 10), 0.0),
    ],
)
def test_iou_by_hand(a, b, expected):
    assert iou(a, b) == pytest.approx(expected, abs=1e-12)
    assert iou(b, a) == pytest.approx(expected, abs=1e-12)


def test_iou_equals_a_count_of_pixels():
    draw = random.Random(0)

    def box():
        x1, y1 = draw.randrange(12), draw.randrange(12)
        return x1, y1, x1 + draw.randrange(1, 8), y1 + draw.randrange(1, 8)

    def pixels(b):
        return {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}

    for _ in range(500):
        a, b = box(), box()
        assert iou(a, b) == pytest.approx(len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)), abs=1e-12)


def whole_box(draw, size=12):
    x1, y1 = draw.randrange(size), draw.randrange(size)
    return x1, y1, x1 + draw.randrange(1, 8), y1 + draw.randrange(1, 8)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (2, 2, 4, 4), 4 / 100),  # the smaller inside the larger: IoU
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),  # their union is a box: IoU
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175 - (225 - 175) / 225),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # they touch along a side
        ((0, 0, 10, 10), (20, 0, 30, 10), -100 / 300),
        ((0, 0, 1, 1), (99, 99, 100, 100), -(10_000 - 2) / 10_000),
        ((0, 0, 10, 10), (10, 10, 0, 0), -1.0),  # inverted
        ((0, 0, 0, 10), (0, 0, 0, 10), -1.0),  # no area, however equal
        ((0, 0, 10, 10), (-math.inf, 0, math.inf, 10), -1.0),
        ((0, 0, 10, 10), (0, 0, 1e200, 1e200), -1.0),  # finite sides, an area that is not
        ((0, 0, 1, 10), (0, 0, 1e308, 1), -1.0),  # so is the area of the box around both
    ],
)
def test_giou_by_hand(a, b, expected):
    assert giou(a, b) == pytest.approx(expected, abs=1e-12)
    assert giou(b, a) == pytest.approx(expected, abs=1e-12)


def test_giou_equals_a_count_of_pixels():
    def pixels(b):
        return {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}

    draw = random.Random(1)
    apart = 0
    for _ in range(500):
        a, b = whole_box(draw), whole_box(draw)
        both = pixels(a) | pixels(b)
        columns, rows = {x for x, _ in both}, {y for _, y in both}
        around = (max(columns) - min(columns) + 1) * (max(rows) - min(rows) + 1)
        shared = len(pixels(a) & pixels(b)) / len(both)
        assert giou(a, b) == pytest.approx(shared - (around - len(both)) / around, abs=1e-12)
        apart += not shared
    assert 50 < apart < 450  # both kinds were met


def test_iou_and_giou_are_bounded_symmetric_and_scale_invariant():
    draw = random.Random(2)

    def box(scale):
        x1, y1 = draw.uniform(-scale, scale), draw.uniform(-scale, scale)
        return x1, y1, x1 + draw.uniform(0, scale), y1 + draw.uniform(0, scale)

    for _ in range(2000):
        scale = 10 ** draw.uniform(-3, 6)
        a, b = box(scale), box(scale * 10 ** draw.uniform(-1, 1))
        assert 0 <= iou(a, b) <= 1
        assert -1 <= giou(a, b) <= iou(a, b), "GIoU is a lower bound of IoU"
        for similarity in (iou, giou):
            assert similarity(a, a) == 1.0
            assert similarity(a, b) == pytest.approx(similarity(b, a), abs=1e-12)
            zoomed = similarity(tuple(7 * x for x in a), tuple(7 * x for x in b))
            assert zoomed == pytest.approx(similarity(a, b), abs=1e-9), "it does not depend on the scale"


def mean_iou(predicted, reference):
    return matched_similarity(predicted, reference, similarity=iou, unmatched=0.0)


def test_each_box_is_paired_once_and_unmatched_boxes_count_as_configured():
    a, b = (0, 0, 10, 10), (20, 0, 30, 10)
    half = (0, 0, 10, 5)  # IoU 0.5 with a
    assert mean_iou([a, b], [b, a]) == 1.0
    assert mean_iou([a], [a, b]) == 0.5  # one missed
    assert mean_iou([a, a], [a]) == 0.5  # one repeated: it finds no second partner
    assert mean_iou([half, a], [a]) == 0.5  # the better one is the partner
    assert mean_iou([half], [a]) == 0.5
    assert mean_iou([], [a]) == mean_iou([a], []) == mean_iou([], []) == 0.0
    assert matched_similarity([a, b, half], [a], similarity=iou, unmatched=-1.0) == pytest.approx((1 - 2) / 3)
    assert matched_similarity([], [a], similarity=giou, unmatched=-1.0) == -1.0


def test_pairing_maximises_the_sum_not_the_first_pair():
    # The predicted box p fits r a little better than q does, but q fits nothing else and p does.
    r, s = (0, 0, 10, 10), (0, 0, 10, 20)
    p, q = (0, 0, 10, 12), (0, 0, 10, 8)
    assert iou(p, r) > iou(q, r) > iou(p, s) > iou(q, s)
    assert mean_iou([p, q], [r, s]) == pytest.approx((iou(q, r) + iou(p, s)) / 2)
    assert iou(q, r) + iou(p, s) > iou(p, r) + iou(q, s)


@pytest.mark.parametrize(("similarity", "unmatched"), [(iou, 0.0), (giou, -1.0)])
def test_pairing_equals_the_best_of_all_permutations(similarity, unmatched):
    def brute_force(predicted, reference):
        few, many = sorted((predicted, reference), key=len)
        totals = (
            sum(similarity(x, y) for x, y in zip(few, chosen, strict=True))
            for chosen in itertools.permutations(many, len(few))
        )
        return (max(totals) + unmatched * (len(many) - len(few))) / len(many)

    draw = random.Random(3)
    sizes = [(n, m) for n in range(1, 7) for m in range(1, 7)]
    greedy_differs = 0
    for n, m in sizes * 3:
        predicted, reference = ([whole_box(draw, 4) for _ in range(count)] for count in (n, m))
        value = matched_similarity(predicted, reference, similarity=similarity, unmatched=unmatched)
        assert value == pytest.approx(brute_force(predicted, reference), abs=1e-12)
        assert value == pytest.approx(
            matched_similarity(reference, predicted, similarity=similarity, unmatched=unmatched), abs=1e-12
        )
        greedy_differs += abs(value - best_pairs_first(predicted, reference, similarity, unmatched)) > 1e-9
    assert greedy_differs > 10  # the cases tell the two apart


def best_pairs_first(predicted, reference, similarity, unmatched):
    left, right = list(predicted), list(reference)
    total = 0.0
    while left and right:
        value, x, y = max((similarity(x, y), x, y) for x in left for y in right)
        total += value
        left.remove(x)
        right.remove(y)
    larger = max(len(predicted), len(reference))
    return (total + unmatched * (len(left) + len(right))) / larger


def test_rescale_maps_box_space_to_original_pixels_and_back():
    # 1000 × 1000 model space, a 640 × 480 photograph: x by 0.64, y by 0.48.
    assert rescale((100, 100, 500, 1000), source=(1000, 1000), target=(640, 480)) == pytest.approx((64, 48, 320, 480))
    box = (3.0, 5.0, 77.0, 99.0)
    there = rescale(box, source=(640, 480), target=(308, 252))
    assert rescale(there, source=(308, 252), target=(640, 480)) == pytest.approx(box, abs=1e-12)
