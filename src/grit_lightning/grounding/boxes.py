"""Geometry of boxes: validity, overlap measures, matching, and conversion between image sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from grit_lightning.types import Box, Size


def valid_boxes(boxes: Sequence[Box], size: Size) -> tuple[bool, ...]:
    """Return one flag per box: True if it is ordered, inside an image of ``size``, and no repetition of an earlier box.

    Ordered means x1 < x2 and y1 < y2. ``boxes`` are in the pixels of that image.
    """
    seen: set[Box] = set()
    flags = []
    for box in boxes:
        x1, y1, x2, y2 = box
        flags.append(0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1] and box not in seen)
        seen.add(box)
    return tuple(flags)


def area(box: Box) -> float:
    """Return the area in square pixels; 0 for a box that is inverted, empty or too large for a finite area."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    size = width * height
    return size if width > 0 and height > 0 and size < math.inf else 0.0


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes in the same pixels, 0 to 1; 0 if either has no area."""
    intersection, union = _intersection_and_union(a, b)
    return intersection / union if union else 0.0


def giou(a: Box, b: Box) -> float:
    """Return the generalized IoU of two boxes in the same pixels, −1 to 1.

    GIoU = IoU − (|C| − |A ∪ B|) / |C|, where C is the smallest box that encloses both (Rezatofighi et al. 2019,
    arXiv 1902.09630, Alg. 1). Below 0, it decreases with the distance between the boxes. If either box has no area, the
    result is −1, the limit for small boxes far apart.
    """
    intersection, union = _intersection_and_union(a, b)
    enclosing = area((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    if not union or not enclosing:
        return -1.0
    return intersection / union - max(enclosing - union, 0.0) / enclosing


def _intersection_and_union(a: Box, b: Box) -> tuple[float, float]:
    """Return intersection and union in square pixels; both are 0 if either box has no area."""
    if not area(a) or not area(b):
        return 0.0, 0.0
    intersection = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    # In this order no intermediate sum exceeds the union, which may be close to the largest float.
    return intersection, area(a) + (area(b) - intersection)


def matched_pairs(
    predicted: Sequence[Box], reference: Sequence[Box], *, similarity: Callable[[Box, Box], float]
) -> list[float]:
    """Return the similarities of the pairs in the best one-to-one matching of two sets of boxes in the same pixels.

    The matching has the largest total similarity (Kuhn 1955, Munkres 1957) and as many pairs as the smaller set has
    boxes.
    """
    if not predicted or not reference:
        return []
    from scipy.optimize import linear_sum_assignment  # slow to import, and rarely needed by whatever reads boxes

    table = np.array([[similarity(p, r) for r in reference] for p in predicted])
    return [float(value) for value in table[linear_sum_assignment(table, maximize=True)]]


def matched_similarity(
    predicted: Sequence[Box], reference: Sequence[Box], *, similarity: Callable[[Box, Box], float], unmatched: float
) -> float:
    """Return the mean similarity of two sets of boxes in the same pixels, paired by :func:`matched_pairs`.

    Each unpaired box counts as ``unmatched``, and the sum is divided by the size of the larger set, so that both a
    missed box and an invented box are penalised. If either set is empty, the result is ``unmatched``.
    """
    pairs = matched_pairs(predicted, reference, similarity=similarity)
    if not pairs:
        return unmatched
    larger = max(len(predicted), len(reference))
    return (math.fsum(pairs) + unmatched * (larger - len(pairs))) / larger


def union_iou(a: Sequence[Box], b: Sequence[Box]) -> float:
    """Return the IoU of the regions that two sets of boxes cover, in the same pixels, 0 to 1; 0 if either is empty.

    The region of a set is the union of its boxes, so the number of boxes does not matter: one large box around several
    objects covers about the same region as one box per object.
    """
    a, b = [box for box in a if area(box)], [box for box in b if area(box)]
    if not a or not b:
        return 0.0
    xs = np.unique([x for box in (*a, *b) for x in box[::2]])
    ys = np.unique([y for box in (*a, *b) for y in box[1::2]])
    # Cell areas as fractions of the whole grid: products of side lengths in pixels could overflow.
    cells = np.outer(np.diff(ys) / np.ptp(ys), np.diff(xs) / np.ptp(xs))
    inside_a, inside_b = _cover(a, xs, ys), _cover(b, xs, ys)
    return float(cells[inside_a & inside_b].sum() / cells[inside_a | inside_b].sum())


def _cover(boxes: Sequence[Box], xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Return a mask of the cells of the grid ``xs`` × ``ys`` that the boxes cover: bool, shape (rows, columns)."""
    covered = np.zeros((len(ys) - 1, len(xs) - 1), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        columns = slice(*np.searchsorted(xs, (x1, x2)))
        covered[slice(*np.searchsorted(ys, (y1, y2))), columns] = True
    return covered


def rescale(box: Box, *, source: Size, target: Size) -> Box:
    """Convert a box from the pixels of an image of size ``source`` to those of the same image at size ``target``.

    ``image_boxes.in_pixels`` converts a box of a completion to original pixels.
    """
    x, y = target[0] / source[0], target[1] / source[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y
