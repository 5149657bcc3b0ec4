"""Tests of the judge that reads options: right, wrong, ambiguous, and the same under every order of the options."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from grit_lightning.grounding.options import options_in, shuffled, with_options
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.judge.option import OptionJudge
from grit_lightning.judge.protocol import answer_for
from grit_lightning.rewards.answer import answer_match
from grit_lightning.types import Completion
from support.samples import one_image

OPTIONS = ("red", "blue", "green")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("B", 1.0), ("(B) blue", 1.0), ("The answer is B.", 1.0), ("b) blue", 1.0), ("Blue", 1.0), ("It is blue.", 1.0),
        ("A", 0.0), ("green", 0.0), ("purple", 0.0), ("E", 0.0), ("", 0.0),
        ("A or B", None), ("(B) red", None), ("red or blue", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reference", ["blue", "B", "(b)"])
def test_one_option_is_right_another_wrong_and_two_cannot_be_told(
    answer: str, score: float | None, reference: str
) -> None:
    assert OptionJudge()(with_options("Which colour?", OPTIONS), reference, answer) == score


def test_a_question_without_options_is_judged_by_exact_match() -> None:
    assert OptionJudge()("Which colour?", "blue", "Blue.") == ExactMatch()("", "blue", "Blue.") == 1.0
    assert OptionJudge()("Which (A) or (B)?", "blue", "red") == 0.0


def test_the_order_of_the_options_does_not_move_the_score_of_a_fixed_policy() -> None:
    """A policy that sees the car, and says what it sees in one of several ways, by letter or by text."""
    says = (
        lambda letter, text: letter,
        lambda letter, text: f"({letter}) {text}",
        lambda letter, text: f"It is {text}.",
        lambda letter, text: f"The answer is {letter}.",
    )
    for order in itertools.permutations(OPTIONS):
        question = with_options("Which colour is the car?", order)
        for seen in OPTIONS:
            scores = {OptionJudge()(question, "blue", say("ABC"[order.index(seen)], seen)) for say in says}
            assert scores == {float(seen == "blue")}


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("What?", ()),
        ("What?", ("x", "y")),
        ("Two\nlines (A) here", ("x (B) y", "", "z")),
        ("Look:\n(A) no option", ("red", "blue")),
        ("What?", tuple(map(str, range(26)))),
    ],
)
def test_options_are_read_back_from_the_question(question: str, options: tuple[str, ...]) -> None:
    assert options_in(with_options(question, options)) == options


def test_an_order_is_a_function_of_its_key() -> None:
    assert shuffled(OPTIONS, key="0/a") == shuffled(OPTIONS[::-1], key="0/a")
    orders = {shuffled(OPTIONS, key=f"0/{index}") for index in range(100)}
    assert orders == set(itertools.permutations(OPTIONS))


def test_the_judge_gets_the_answer_as_it_is_and_others_the_text_of_its_letter() -> None:
    assert answer_for(OptionJudge(), " C ", ("C++", "C#", "C")) == "C"
    assert answer_for(ExactMatch(), " (b) ", OPTIONS) == "blue"
    names = ("d", "train", "a:1")
    sample = one_image("a/1", "Which colour?", "blue", Path("x.png"), (10, 10), (), *names, options=OPTIONS)
    said = {
        text: answer_match(sample, Completion((), f"<answer>{text}</answer>", "stop", ((10, 10),)),
                           judge=OptionJudge(), threshold=0.0)
        for text in ("The answer is B.", "I think red", "A or B", "")
    }  # fmt: skip
    assert said == {"The answer is B.": 1.0, "I think red": 0.0, "A or B": None, "": 0.0}
