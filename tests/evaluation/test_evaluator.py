"""Tests of the evaluator: predictions do not depend on the batch, and decoding overlaps with judging."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import redirect_stderr
from typing import Any

import pytest
import torch

from grit_lightning.errors import ConfigError
from grit_lightning.evaluation import evaluator
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.rollout.sampler import Sampler, greedy
from grit_lightning.system import slow
from grit_lightning.system.slow import announced
from grit_lightning.types import Prompt, Sample
from support.predicted import evaluator as make_evaluator


@pytest.fixture(scope="module")
def talkative(backbone) -> torch.nn.Module:
    """The tiny model with random weights large enough that its answers differ between images."""
    model = backbone.load_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2.5 / parameter.shape[1] ** 0.5)
    return model


@pytest.fixture
def many_prompts(make_prompt) -> list[Prompt]:
    sizes = [(112, 112), (300, 300), (224, 112), (130, 200), (60, 400)]
    questions = ["Is it?", "How many red circles are there?", "What is left of the very big green star in the middle?"]
    made = [make_prompt(index, sizes[index % 5], questions[index % 3]) for index in range(15)]
    return [dataclasses.replace(one, sample=dataclasses.replace(one.sample, regions=())) for one in made]


def predict(model, backbone, prompts: Sequence[Prompt], **changes: Any) -> list[list[Prediction]]:
    """Return the predictions of each sample, in the order of the prompts."""
    by_id = {prompt.sample.id: prompt for prompt in prompts}
    samples = [prompt.sample for prompt in prompts]
    made = make_evaluator(**{"max_new_tokens": 12} | changes)
    groups = list(made.predict(model, backbone, samples, lambda sample: by_id[sample.id], what="x", quiet=True))
    assert len(groups) == len(samples)
    found = {group[0]["sample_id"]: group for group in groups}
    return [found[sample.id] for sample in samples]


@torch.no_grad()
def test_predictions_do_not_depend_on_the_batch(backbone, talkative, many_prompts) -> None:
    alone = predict(talkative, backbone, many_prompts, batch_size=1)
    assert len({one["text"] for (one,) in alone}) > 10
    assert {one["prompt_version"] for (one,) in alone} == {backbone.prompt_version}
    for batch_size in (7, 64):
        assert predict(talkative, backbone, many_prompts, batch_size=batch_size) == alone


@torch.no_grad()
def test_sampled_completions_depend_on_seed_and_sample_only(backbone, talkative, many_prompts) -> None:
    sampler = Sampler(
        num_generations=3, max_new_tokens=8, temperature=1.0, top_k=0, top_p=1.0, stop="</answer>", max_sequences=6
    )
    all_of_them = predict(talkative, backbone, many_prompts, sampler=sampler, batch_size=6)
    assert [[one["completion_index"] for one in group] for group in all_of_them] == [[0, 1, 2]] * len(many_prompts)
    assert all(len({one["text"] for one in group}) > 1 for group in all_of_them)
    backwards = predict(talkative, backbone, many_prompts[:4][::-1], sampler=sampler, batch_size=64)
    assert backwards[::-1] == all_of_them[:4]
    other = predict(talkative, backbone, many_prompts[:4], sampler=sampler, seed=1)
    assert all(one != before for one, before in zip(other, all_of_them[:4], strict=True))


class SlowJudge:
    """An asynchronous judge whose futures the test completes."""

    def __init__(self) -> None:
        self.asked: list[Future[float | None]] = []

    def __call__(self, question: str, reference: str, answer: str) -> float | None:
        raise AssertionError("it asks ahead")

    def ask(self, question: str, reference: str, answer: str) -> Future[float | None]:
        self.asked.append(Future())
        return self.asked[-1]


@torch.no_grad()
def test_the_next_batch_is_decoded_while_the_judge_answers(backbone, talkative, many_prompts) -> None:
    judge = SlowJudge()
    by_id = {prompt.sample.id: prompt for prompt in many_prompts[:6]}
    made = make_evaluator(judge=judge, batch_size=2)
    samples = [prompt.sample for prompt in by_id.values()]
    predicting = made.predict(talkative, backbone, samples, lambda one: by_id[one.id], what="x", quiet=True)
    decoded: list[int] = []

    def answer_when_two_batches_are_out(one: Prompt, *rest: Any) -> Any:
        decoded.append(len(judge.asked))
        for future in judge.asked:
            if len(judge.asked) > 2 and not future.done():
                future.set_result(0.5)
        return begin(one, *rest)

    begin, made.begin_scoring = made.begin_scoring, answer_when_two_batches_are_out  # type: ignore[method-assign]
    first = next(predicting)
    assert first[0]["scores"]["judge"] == 0.5
    assert len(judge.asked) == 4, "two batches of two were asked about before the first is waited for"


@torch.no_grad()
def test_score_again_replaces_the_scores_and_nothing_else(backbone, talkative, many_prompts) -> None:
    answers = iter([None, 0.25, 0.75])
    ((one,),) = predict(talkative, backbone, many_prompts[:1], judge=lambda *_: next(answers))
    assert one["scores"]["judge"] is None
    again = make_evaluator(judge=lambda *_: next(answers))
    (scored,) = again.score_again([one])
    assert scored["scores"]["judge"] == 0.25
    assert {name: value for name, value in scored.items() if name != "scores"} == {
        name: value for name, value in one.items() if name != "scores"
    }


@torch.no_grad()
def test_options_are_shown_in_an_order_that_seed_and_sample_decide(backbone, talkative, many_prompts) -> None:
    options = ("red", "blue", "green", "yellow")
    with_options = [
        dataclasses.replace(one, sample=dataclasses.replace(one.sample, options=options)) for one in many_prompts[:6]
    ]
    by_id = {prompt.sample.id: prompt for prompt in with_options}

    def orders(seed: int | None) -> dict[str, tuple[str, ...]]:
        asked: list[Sample] = []

        def prompt(sample: Sample) -> Prompt:
            asked.append(sample)
            return dataclasses.replace(by_id[sample.id], sample=sample)

        made = make_evaluator(max_new_tokens=2, shuffle_options=seed)
        samples = [one.sample for one in with_options]
        groups = made.predict(talkative, backbone, samples, prompt, what="x", quiet=True)
        shown = {one["sample_id"]: tuple(one["options"]) for group in groups for one in group}
        assert shown == {one.id: one.options for one in asked}
        return shown

    assert set(orders(None).values()) == {options}
    shuffled = orders(1)
    assert shuffled == orders(1) != orders(2)
    assert len(set(shuffled.values())) > 1
    assert {tuple(sorted(order)) for order in shuffled.values()} == {tuple(sorted(options))}


def test_settings_change_with_everything_that_decides_a_prediction() -> None:
    greedy_settings = make_evaluator(batch_size=1).settings()
    assert greedy_settings == make_evaluator(batch_size=9, resamples=5, seed=4).settings()
    assert greedy_settings["judge"] == "exact match"
    changes: list[dict[str, Any]] = [
        {"max_new_tokens": 5},
        {"stop": "x"},
        {"judge": lambda *_: 1.0},
        {"measures": {"mine": lambda sample, completion: 1.0}},
        {"shuffle_options": 0},
    ]
    for change in changes:
        assert make_evaluator(**change).settings() != greedy_settings


@torch.no_grad()
def test_greedy_takes_the_most_likely_token_that_is_allowed(backbone, talkative, many_prompts) -> None:
    prompt = many_prompts[0]
    (completion,) = greedy(talkative, backbone, [prompt], max_new_tokens=6, stop="</answer>")
    ids = prompt.input_ids_S.tolist()
    for token in completion.token_ids:
        inputs = torch.tensor([ids])
        logits_V = talkative(
            inputs, mm_token_type_ids=(inputs == backbone.image_token_id).int(), **prompt.vision
        ).logits[0, -1]
        logits_V[list(backbone.banned_token_ids)] = -torch.inf
        assert int(logits_V.argmax()) == token
        ids.append(token)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "evaluation.batch_size is 0"),
        ({"max_new_tokens": 0}, "evaluation.max_new_tokens is 0"),
        ({"resamples": -1}, "evaluation.resamples is -1"),
        ({"stop": ""}, "evaluation.stop is empty"),
        ({"measures": {"judge": len}}, "evaluation.measures.judge is a built-in score"),
        ({"measures": {"mine": len}}, "evaluation.measures.mine.fn cannot be called as fn"),
    ],
)
def test_values_out_of_range_are_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_evaluator(**change)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("quiet", "expected"), [(False, ["what: 32 of 100 samples …"]), (True, [])])
def test_without_a_terminal_an_evaluation_that_takes_long_says_how_far_it_is(
    monkeypatch, caplog, quiet: bool, expected: list[str]
) -> None:
    monkeypatch.setattr(slow, "announced", lambda what, after: announced(what, after=0.1, every=60))
    caplog.set_level("INFO")
    with redirect_stderr(io.StringIO()), evaluator._progress("what", 100, quiet=quiet) as advance:
        advance(32)
        time.sleep(0.3)
    assert caplog.messages == expected


def test_progress_on_a_terminal_is_a_bar_that_is_cleared_at_the_end() -> None:
    with redirect_stderr(Terminal()) as text, evaluator._progress("what", 100, quiet=False) as advance:
        time.sleep(2.2)  # what is quick shows no bar
        advance(100)
    assert "what: 100%" in text.getvalue()
    assert text.getvalue().split("\r")[-2].strip() == ""
