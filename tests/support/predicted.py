"""Predictions and evaluators for tests of metrics, tables and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from grit_lightning.evaluation.during_training import DuringTraining
from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.judge.protocol import Judge
from grit_lightning.types import Completion, Prompt
from support.samples import one_image

VERSION = "0123456789ab"

BOX = '{"bbox_2d": [0, 0, 100, 50]}'  # of a 200 × 100 box space: the top left quarter of a 100 × 100 image


def grounded(think: str = BOX, answer: str = "1") -> str:
    return f"<think> {think} </think> <rethink> so </rethink> <answer> {answer} </answer>"


def during_training(**changes: Any) -> DuringTraining:
    """Return the options of held-out answers during training: all samples, and every second step."""
    values: dict[str, Any] = {
        "before_and_after": None,
        "every_n_steps": 2,
        "max_samples": None,
        "monitor": "overall/accuracy",
        "mode": "max",
        "patience": None,
    }
    return DuringTraining(**values | changes)


def evaluator(**changes: Any) -> Evaluator:
    """Return an evaluator with greedy decoding and the exact judge; keyword arguments change its options."""
    values: dict[str, Any] = {
        "max_new_tokens": 4,
        "stop": "</answer>",
        "batch_size": 3,
        "sampler": None,
        "seed": 0,
        "judge": ExactMatch(),
        "measures": {},
        "resamples": 100,
    }
    return Evaluator(**values | changes)


def predicted(prompt: Prompt, *completions: Completion, judge: Judge | None = None, **changes: Any) -> list[Prediction]:
    """Return the predictions of one sample, scored by the judge."""
    return evaluator(judge=judge or ExactMatch(), **changes).begin_scoring(prompt, completions, VERSION)()


def record(
    text: str,
    dataset: str = "tallyqa",
    answer: str = "1",
    boxes: tuple = ((0, 0, 50, 50),),
    judge: Judge | None = None,
    tokens: int = 3,
    finish: str = "stop",
    sample_id: str = "f/1",
    **changes: Any,
) -> Prediction:
    """Return the prediction of a sample with an image of 100 × 100 pixels and a box space of 200 × 100."""
    return records([text], dataset, answer, boxes, judge, tokens, finish, sample_id, **changes)[0]


def records(
    texts: list[str],
    dataset: str = "tallyqa",
    answer: str = "1",
    boxes: tuple = ((0, 0, 50, 50),),
    judge: Judge | None = None,
    tokens: int = 3,
    finish: str = "stop",
    sample_id: str = "f/1",
    **changes: Any,
) -> list[Prediction]:
    """Return the predictions of several completions of such a sample; see :func:`record`."""
    sample = one_image(
        sample_id, "How many?", answer, Path("x.png"), (100, 100), boxes, dataset, "heldout", "f.jsonl:1"
    )
    prompt = Prompt(sample, "How many?", torch.zeros(4), torch.zeros(3, 4), {}, ((200, 100),))
    completions = [Completion(tuple(range(tokens)), text, finish, ((200, 100),)) for text in texts]
    return predicted(prompt, *completions, judge=judge, **changes)
