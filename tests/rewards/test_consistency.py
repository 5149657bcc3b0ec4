"""Tests of the consistency reward: the crops and names sent to the judge, and the mean of its scores."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from grit_lightning.errors import ConfigError
from grit_lightning.grounding import parse
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.rewards.consistency import Consistency, crop, name_of
from grit_lightning.rewards.weighted_sum import Rewards
from grit_lightning.system.paths import conf_dir
from grit_lightning.types import Completion, ImageFile, Sample
from support.chat_server import ChatServer
from support.samples import one_image

PROMPT = str(conf_dir().parent / "src" / "grit_lightning" / "assets" / "judge" / "consistency.txt")
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """A sample with an image of 200 × 100 pixels: the left half red, the right half blue."""
    image = Image.new("RGB", (200, 100), COLOURS["red"])
    image.paste(COLOURS["blue"], (100, 0, 200, 100))
    image.save(tmp_path / "halves.png")
    return one_image("halves/1", "What?", "red", tmp_path / "halves.png", (200, 100), (), "vsr", "train", "halves:1")


@pytest.fixture
def reward(make_judge):
    def make(**changes) -> Consistency:
        options = {"prompt": PROMPT, "max_boxes": 4, "max_words": 3, "max_side": 512}
        return Consistency(**{"judge": make_judge(), **options, **changes})

    return make


def completion(text: str, box_space: tuple[int, int] = (1000, 1000)) -> Completion:
    return Completion((1, 2), text, "stop", (box_space,))


def boxed(*named: tuple[str, list[int]]) -> str:
    boxes = (f'{{"bbox_2d": {box}, "label": "{name}"}}' for name, box in named)
    return f"<think> {' and '.join(boxes)} </think>"


def total(reward: Consistency, sample: Sample, text: str) -> float | None:
    return Rewards({"c": {"weight": 1.0, "fn": reward}}).score(sample, completion(text)).total


def last_picture(chat: ChatServer) -> tuple[str, Image.Image]:
    text, picture = chat.stats()["last"][0]["body"]["messages"][0]["content"]
    data = picture["image_url"]["url"].removeprefix("data:image/png;base64,")
    return text["text"], Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(("name", "box"), [("red", [0, 0, 500, 1000]), ("blue", [500, 250, 1000, 750])])
def test_the_judge_gets_the_crop_and_the_label_of_a_box(
    chat: ChatServer, reward, sample: Sample, name: str, box
) -> None:
    assert total(reward(), sample, boxed((f"{name} [score=0.75 faults=]", box))) == 0.75
    text, picture = last_picture(chat)
    assert f"\n{name} [score=0.75 faults=]\n" in text
    assert "untrusted" in text
    assert picture.size == (100, 100 * (box[3] - box[1]) // 1000)
    assert picture.getcolors() == [(picture.width * picture.height, COLOURS[name])]


def test_the_crop_is_of_the_image_that_the_box_names(chat: ChatServer, reward, sample: Sample, tmp_path: Path) -> None:
    Image.new("RGB", (60, 30), "green").save(tmp_path / "green.png")
    both = replace(sample, images=(*sample.images, ImageFile(tmp_path / "green.png", (60, 30))))
    text = '<think> {"bbox_2d": [0, 0, 500, 1000], "label": "[score=0.5 faults=] green", "image": 2} </think>'
    written = replace(completion(text), box_spaces=((1000, 1000), (1000, 1000)))
    assert Rewards({"c": {"weight": 1.0, "fn": reward()}}).score(both, written).total == 0.5
    _, picture = last_picture(chat)
    assert (picture.size, picture.getcolors()) == ((30, 30), [(900, (0, 128, 0))])


def test_invalid_repeated_unnamed_and_surplus_boxes_score_0_in_the_mean(
    chat: ChatServer, reward, sample: Sample
) -> None:
    one = ("[score=1 faults=] red", [0, 0, 500, 1000])
    half = ("[score=0.5 faults=] blue", [500, 0, 1000, 1000])
    assert total(reward(), sample, boxed(one, half)) == 0.75
    assert total(reward(), sample, boxed(one, one)) == 0.5, "repeated"
    assert total(reward(), sample, boxed(one, ("x", [900, 0, 100, 9]))) == 0.5, "inverted"
    assert total(reward(), sample, boxed(one, ("", [1, 1, 9, 9]))) == 0.5, "unnamed"
    assert total(reward(max_boxes=1), sample, boxed(one, half)) == 0.5, "too many"
    assert total(reward(), sample, "<think> nothing to see </think>") == 0.0
    assert chat.stats()["requests"] == 2, "each box with its name once"


def test_a_box_that_cannot_be_judged_leaves_the_completion_unscored(reward, sample: Sample) -> None:
    one = ("[score=1 faults=] red", [0, 0, 500, 1000])
    assert total(reward(), sample, boxed(one, ("[score=1 faults=500*]", [500, 0, 1000, 1000]))) is None


def test_a_box_without_a_label_is_named_by_the_words_before_it(chat: ChatServer, reward, sample: Sample) -> None:
    text = (
        "<think> a big [score=1 faults=] red 0, 0, 500, 1000 and a [score=0.5 faults=] blue 500, 0, 1000, 1000 </think>"
    )
    assert total(reward(max_boxes=1), sample, text) == 0.5, "1 for the first of two boxes"
    assert "\n[score=1 faults=] red\n" in last_picture(chat)[0], "the last three words"
    assert total(reward(), sample, text) == 0.75
    assert chat.stats()["requests"] == 2, "the first box was judged before"
    assert "\n[score=0.5 faults=] blue\n" in last_picture(chat)[0]
    boxes = parse(text).boxes
    assert [name_of(text, boxes, index, 9) for index in (0, 1)] == [
        "<think> a big [score=1 faults=] red",
        "and a [score=0.5 faults=] blue",
    ], "no name reaches back beyond the previous box"


def test_a_crop_is_never_empty_nor_larger_than_asked() -> None:
    image = Image.new("RGB", (200, 100))

    def size(box: tuple[float, float, float, float], max_side: int = 512) -> tuple[int, int]:
        data = crop(image, box, max_side).partition(",")[2]
        return Image.open(io.BytesIO(base64.b64decode(data))).size

    assert size((0, 0, 200, 100)) == (200, 100)
    assert size((0, 0, 200, 100), 50) == (50, 25)
    assert size((10.2, 10.2, 10.4, 10.4)) == (1, 1)
    assert size((199.9, 99.9, 200, 100)) == (1, 1)


def test_a_text_judge_and_limits_below_1_are_refused(reward) -> None:
    with pytest.raises(ConfigError, match="needs a vision judge: expected judge=openai, azure or local"):
        reward(judge=ExactMatch())
    with pytest.raises(ConfigError, match="max_boxes is 0, expected at least 1"):
        reward(max_boxes=0)
