"""Tests of the demo's answers: records that grow, rewards beside a reference answer, and sentences for bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from grit_lightning.demo.answerer import LONGEST_QUESTION, Answerer
from grit_lightning.errors import UserError
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.rewards import Rewards, answer_format, answer_match
from grit_lightning.system.paths import asset

PICTURE = asset("shapes20/images/tallyqa_train_0_1.png")


@pytest.fixture(scope="module")
def answerer(backbone: Any) -> Answerer:
    from functools import partial

    rewards = Rewards(
        {
            "answer_match": {"weight": 1.0, "fn": partial(answer_match, judge=ExactMatch(), threshold=0.0)},
            "answer_format": {"weight": 1.0, "fn": partial(answer_format, present=0.25, once=0.25)},
        }
    )
    return Answerer(
        backbone.load_model(), lambda name: backbone, ["grounded"], rewards,
        max_new_tokens=80, stop="</answer>", temperature=1.0, max_prompt_tokens=750,
    )  # fmt: skip


def ask(answerer: Answerer, image: Path | None = PICTURE, question: str = "How many?", **changes: Any) -> list[Any]:
    given = {"prompt": "grounded", "sampled": False, "reference": ""} | changes
    return list(answerer.answer(image, question, **given))


def test_the_answer_grows_and_is_scored_where_there_is_a_reference_answer(answerer: Answerer) -> None:
    *growing, last = ask(answerer)
    assert [len(one["text"]) for one in growing] == sorted(len(one["text"]) for one in growing)
    assert last["text"].startswith(growing[0]["text"])
    assert last["finish"] in ("stop", "eos", "length")
    assert "rewards" not in last
    scored = ask(answerer, reference=last["parsed_answer"] or "x")[-1]
    assert scored["text"] == last["text"], "greedy answers repeat"
    assert scored["rewards"]["answer_match"] == float(bool(last["parsed_answer"]))
    assert scored["reward"] == sum(scored["rewards"].values())
    assert len({ask(answerer, sampled=True)[-1]["text"] for _ in range(8)}) > 1


def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(PICTURE.read_bytes()[:200])
    (tmp_path / "vector.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    Image.new("L", (2000, 2)).save(tmp_path / "strip.png")
    return {file.stem: file for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "text.png is not an image that can be read"),
        ("empty", "empty.png is not an image that can be read"),
        ("vector", "vector.svg is not an image that can be read"),
        ("huge", "huge.png is 10000 × 10000 px, expected at most 89 million pixels"),
        ("cut", "image cut.png cannot be decoded"),
        ("strip", "image strip.png is 2000 × 2 px; expected an aspect ratio of at most 200"),
    ],
)
def test_a_file_that_is_no_usable_image_gets_a_sentence(
    answerer: Answerer, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        ask(answerer, files(tmp_path)[name])
    assert str(caught.value).startswith(message)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("question", "image", "message"),
    [
        (" \n", PICTURE, "ask a question about the image"),
        ("What?", None, "choose an image first"),
        ("x" * (LONGEST_QUESTION + 1), PICTURE, "the question has 4001 characters, expected at most 4000"),
        ("word " * 790, PICTURE, "expected at most 750"),
        ("<image> and <image>", PICTURE, "the question says <image> 2 times, but there is one image"),
    ],
)
def test_a_question_that_cannot_be_asked_gets_a_sentence(
    answerer: Answerer, question: str, image: Path | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ask(answerer, image, question)
