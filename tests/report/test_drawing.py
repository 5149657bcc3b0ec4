"""Tests of completions drawn on their images, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageColor

from grit_lightning.errors import DataError
from grit_lightning.report.drawing import COLOURS, drawn
from support.pages import completion

GREY = (200, 200, 200)


def image(tmp_path: Path, name: str = "a.png", size: tuple[int, int] = (60, 50)) -> str:
    Image.new("RGB", size, GREY).save(tmp_path / name)
    return str(tmp_path / name)


def box(pixels: list[float], *, valid: bool = True, image: int = 1) -> dict:
    return {"label": None, "form": "json", "image": image, "model": pixels, "pixels": pixels, "valid": valid}


def rgb(index: int) -> tuple[int, ...]:
    return ImageColor.getrgb(COLOURS[index])


def test_boxes_have_colours_of_their_own_and_invalid_ones_are_broken(tmp_path: Path) -> None:
    boxes = [box([5, 5, 20, 20]), box([30, 5, 50, 40], valid=False)]
    picture = drawn(completion("x", image=image(tmp_path), boxes=boxes, reference_boxes=[]))
    assert [picture.getpixel((x, 5)) for x in range(5, 21)] == [rgb(0)] * 16
    edge = [picture.getpixel((x, 5)) for x in range(30, 51)]
    assert rgb(1) in edge
    assert GREY in edge
    assert picture.getpixel((12, 12)) == GREY


def test_reference_boxes_are_dashed_in_black_on_white(tmp_path: Path) -> None:
    picture = drawn(completion("x", image=image(tmp_path), boxes=[], reference_boxes=[[10, 10, 50, 40]]))
    assert {picture.getpixel((x, 10)) for x in range(10, 51)} == {(255, 255, 255), (17, 17, 17)}


def test_wild_numbers_are_drawn_at_the_border_and_missing_ones_left_out(tmp_path: Path) -> None:
    boxes = [box([1e300, 5, -1e300, 20]), box([None, 0, 5, 5])]
    picture = drawn(completion("x", image=image(tmp_path), boxes=boxes, reference_boxes=[]))
    assert [picture.getpixel((x, 5)) for x in (0, 30, 59)] == [rgb(0)] * 3


def test_images_lie_in_a_row_with_their_own_boxes_and_large_ones_are_scaled(tmp_path: Path) -> None:
    more = [{"image": image(tmp_path, "b.png", (200, 100)), "image_size": [200, 100]}]
    boxes = [box([100, 50, 180, 90], image=2)]
    record = completion("x", image=image(tmp_path), more_images=more, boxes=boxes, reference_boxes=[])
    picture = drawn(record, longest_side=100)
    assert picture.size == (60 + 100, 50)
    assert picture.getpixel((60 + 70, 25)) == rgb(0), "half of (140, 50) in the second image"
    assert drawn(record).size == (60 + 200, 100)


def test_an_image_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        drawn(completion("x", image=str(tmp_path / "gone.png")))
