"""Tests of rewards and evaluation with a judge over HTTP: questions are sent ahead, and a failure is unscored."""

from __future__ import annotations

import copy
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from grit_lightning.rewards.answer import answer_match
from grit_lightning.rewards.weighted_sum import Rewards
from grit_lightning.types import Completion, Group, Prompt
from support.chat_server import ChatServer
from support.predicted import predicted
from support.samples import one_image
from support.scoring import score_group

SAMPLE = one_image("cats/1", "How many cats?", "2", Path("cats.jpg"), (64, 48), (), "tallyqa", "train", "cats.jsonl:1")


def completion(text: str) -> Completion:
    return Completion((1, 2, 3), text, "stop", ((64, 48),))


def answered(score: float, faults: str = "", number: int = 0) -> Completion:
    return completion(f"<answer>{number} [score={score} faults={faults}]</answer>")


def group(*completions: Completion) -> Group:
    zeros = torch.zeros(1, dtype=torch.int64)
    return Group(0, Prompt(SAMPLE, "", zeros, zeros[None], {}, ((64, 48),)), completions)


@pytest.fixture
def rewards(make_judge) -> Rewards:
    judge = make_judge(cache=False)
    parts = {"answer_match": (1.0, 0.0), "answer_score": (0.0, None)}
    return Rewards(
        {
            name: {"weight": weight, "fn": partial(answer_match, judge=judge, threshold=threshold)}
            for name, (weight, threshold) in parts.items()
        }
    )


def test_all_questions_of_a_step_are_sent_before_a_result_is_awaited(chat: ChatServer, rewards: Rewards) -> None:
    chat.control(delay=1.0)
    scoring = rewards.submit([group(*(answered(0.5, number=8 * p + g) for g in range(8))) for p in range(2)])
    deadline = time.monotonic() + 60
    while (stats := chat.stats())["most_busy"] < 16:  # the result has not been requested yet
        assert time.monotonic() < deadline, stats
        time.sleep(0.02)
    scores = scoring.result(timeout=60).scores
    assert [[score.total for score in of_group] for of_group in scores] == [[1.0] * 8] * 2
    assert chat.stats()["requests"] == 16, "for two components"


def test_training_and_raw_score_come_from_one_reply_and_failures_are_unscored(
    chat: ChatServer, rewards: Rewards
) -> None:
    completions = (answered(0.3), answered(0.0), answered(0.9, "500*"), completion("no answer"))
    scores = score_group(rewards, group(*completions))
    assert [dict(score.components) for score in scores] == [
        {"answer_match": 1.0, "answer_score": 0.3},
        {"answer_match": 0.0, "answer_score": 0.0},
        {"answer_match": None, "answer_score": None},
        {"answer_match": 0.0, "answer_score": 0.0},
    ]
    assert [score.total for score in scores] == [1.0, 0.0, None, 0.0]
    assert chat.stats()["requests"] == 2 + 3


def test_copied_rewards_can_ask_the_judge(chat: ChatServer, rewards: Rewards) -> None:
    rewards.submit([group(answered(1.0))]).result(timeout=60)
    twin = copy.deepcopy(rewards)
    assert twin.submit([group(answered(1.0, number=1))]).result(timeout=60).scores[0][0].total == 1.0


def test_a_prediction_has_the_raw_score_or_none(chat: ChatServer, make_judge) -> None:
    prompt = group().prompt
    judge = make_judge()
    assert predicted(prompt, answered(0.3), judge=judge)[0]["scores"]["judge"] == 0.3
    assert predicted(prompt, answered(0.3, "500*"), judge=judge)[0]["scores"]["judge"] is None
    assert predicted(prompt, completion("<answer> </answer>"), judge=judge)[0]["scores"]["judge"] == 0.0
