"""Tests of the judge watch: its metrics, and when it ends a training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from grit_lightning.errors import JudgeError
from grit_lightning.judge.chat.statistics import Counts
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.judge.llm import LLMJudge, Price
from grit_lightning.training.guards.judge_watch import JudgeWatch


class Scripted(LLMJudge):
    """A judge that returns given counts, one set per step."""

    def __init__(self, *steps: Counts, max_unscored: float = 0.25, patience: int = 2) -> None:
        self.price = Price(prompt=2.0, completion=10.0)
        self.max_unscored, self.patience = max_unscored, patience
        self.steps = list(steps)

    def take_counts(self) -> Counts:
        return self.steps.pop(0)

    @property
    def last_failure(self) -> str:
        return "HTTP 503"


class TwoAlike:
    """A strategy of two processes with identical values."""

    root_device = torch.device("cpu")

    def reduce(self, values: torch.Tensor, reduce_op: str) -> torch.Tensor:
        return 2 * values if reduce_op == "sum" else values


def counts(questions: int, unscored: int, **others: Any) -> Counts:
    return Counts(questions=questions, unscored=unscored, **others)


def test_judge_metrics_are_summed_over_processes() -> None:
    step = counts(
        8, 1, known=2, requests=7, failures=2, prompt_tokens=500, completion_tokens=50, latencies=[0.1, 0.4, 0.2]
    )
    assert JudgeWatch(Scripted(step)).step(TwoAlike()) == pytest.approx(
        {
            "judge/questions": 16,
            "judge/unscored": 1 / 8,
            "judge/known": 2 / 8,
            "judge/requests": 14,
            "judge/failures": 4,
            "judge/prompt_tokens": 1000,
            "judge/completion_tokens": 100,
            "judge/cost": (2 * 1000 + 10 * 100) / 1e6,
            "judge/latency_p50": 0.2,
            "judge/latency_p95": 0.4,
        }
    )


def test_a_step_without_questions_or_replies_has_no_latency_and_no_shares() -> None:
    metrics = JudgeWatch(Scripted(counts(0, 0))).step(TwoAlike())
    assert metrics["judge/unscored"] == metrics["judge/known"] == 0.0
    assert "judge/latency_p50" not in metrics


def test_training_ends_after_patience_bad_steps_in_a_row() -> None:
    bad, fair, silent = counts(4, 2), counts(4, 1), counts(0, 0)
    watch = JudgeWatch(Scripted(bad, fair, bad, silent, bad))
    for _ in range(4):
        watch.step(TwoAlike())
    with pytest.raises(JudgeError) as error:
        watch.step(TwoAlike())
    assert str(error.value) == (
        "training stopped: the judge left 50 % of this step's answers unscored (last reason: HTTP 503), above "
        "judge.max_unscored=0.25 in 2 steps in a row"
    )


def test_max_unscored_of_1_never_ends_training() -> None:
    watch = JudgeWatch(Scripted(*[counts(4, 4)] * 5, max_unscored=1.0, patience=1))
    assert [watch.step(TwoAlike())["judge/unscored"] for _ in range(5)] == [1.0] * 5


def test_a_judge_that_cannot_fail_is_not_watched() -> None:
    watch = JudgeWatch(ExactMatch())
    watch.reset()
    assert watch.step(SimpleNamespace()) == {}
