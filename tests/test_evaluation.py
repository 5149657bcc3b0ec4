"""Metrics by hand on records made by hand, and predictions that do not depend on the batch."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch

from grit_lightning import evaluation
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation import (
    Evaluator,
    Prediction,
    comparison,
    given_answer,
    grounding_iou,
    is_grounded,
    metrics,
    overview,
    prediction,
    read_predictions,
    summary,
    write_predictions,
)
from grit_lightning.judge import ExactMatch
from grit_lightning.rollout_store import from_record
from grit_lightning.types import Completion, Prompt, Sample

BOX = '{"bbox_2d": [0, 0, 100, 50]}'  # of a 200 × 100 box space: the top left quarter of a 100 × 100 image


def grounded(think: str = BOX, answer: str = "1") -> str:
    return f"<think> {think} </think> <rethink> so </rethink> <answer> {answer} </answer>"


def record(
    text: str,
    dataset: str = "tallyqa",
    answer: str = "1",
    boxes: tuple = ((0, 0, 50, 50),),
    judge: Callable[..., float | None] | None = None,
    tokens: int = 3,
    finish: str = "stop",
) -> Prediction:
    sample = Sample("f/1", "How many?", answer, Path("x.png"), (100, 100), boxes, dataset, "heldout", "f.jsonl:1")
    prompt = Prompt(sample, "How many?", torch.zeros(4), torch.zeros(3, 4), {}, (200, 100))
    completion = Completion(tuple(range(tokens)), text, finish, (200, 100))
    return prediction(prompt, completion, judge or ExactMatch())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (grounded(answer="2"), "2"),
        ("<answer> 1 </answer> <answer> 2 </answer>", "2"),
        ("<think> 3 </think> <answer> two", "two"),
        ("  Two.\n", "Two."),  # a plain prompt
        ("<think> I see 2", "<think> I see 2"),
        ("<answer> </answer> 2", ""),
        ("", ""),
    ],
)
def test_the_answer_is_that_of_the_tag_or_else_the_whole_text(text: str, answer: str) -> None:
    assert given_answer(text) == answer
    assert record(text)["parsed_answer"] == answer


def test_a_prediction_says_what_was_asked_written_and_pointed_at() -> None:
    one = record(grounded(), tokens=7, finish="length")
    assert (one["sample_id"], one["question"], one["answer"], one["dataset"]) == ("f/1", "How many?", "1", "tallyqa")
    assert (one["image"], one["image_size"], one["reference_boxes"]) == ("x.png", [100, 100], [[0, 0, 50, 50]])
    assert (one["text"], one["num_tokens"], one["finish"], one["score"]) == (grounded(), 7, "length", 1.0)
    (box,) = one["boxes"]
    assert (box["model"], box["pixels"]) == ([0, 0, 100, 50], [0, 0, 50, 50])
    assert len(one["prompt_sha256"]) == 64
    sample, completion = from_record(one)
    assert (sample.id, completion.text) == ("f/1", grounded())


def test_accuracy_is_the_mean_score_of_what_was_judged() -> None:
    raw = iter([0.25, None, float("nan"), 1.0])
    ones = [record(grounded(), judge=lambda *_: next(raw)) for _ in range(4)]
    values = metrics(ones)
    assert values["accuracy"] == pytest.approx(0.625)
    assert (values["unscored"], values["samples"]) == (2, 4)


def test_an_empty_answer_is_wrong_without_asking() -> None:
    asked = []
    one = record("<answer> </answer>", judge=lambda *call: asked.append(call) or 1.0)
    assert (one["score"], asked) == (0.0, [])
    record("<answer> 2 </answer>", answer="3", judge=lambda *call: asked.append(call) or 1.0)
    assert asked == [("How many?", "3", "2")]


@pytest.mark.parametrize(
    ("think", "reference", "expected"),
    [
        (BOX, ((0, 0, 50, 50),), 1.0),
        (BOX, ((0, 0, 50, 50), (50, 50, 100, 100)), 0.5),  # the second is missed
        (BOX, ((0, 0, 100, 50),), 0.5),
        (BOX, ((0, 0, 100, 50), (0, 0, 50, 100)), 0.5),  # one box may serve for both
        (f'{BOX} {{"bbox_2d": [150, 60, 190, 90]}}', ((0, 0, 50, 50),), 1.0),  # the best counts
        ('{"bbox_2d": [100, 50, 0, 0]}', ((0, 0, 50, 50),), 0.0),  # inverted
        (f"{'9' * 400}, 0, 100, 50", ((0, 0, 50, 50),), 0.0),  # infinite
        ("nothing", ((0, 0, 50, 50),), 0.0),
    ],
)
def test_grounding_iou_by_hand(think: str, reference: tuple, expected: float) -> None:
    one = record(grounded(think), boxes=reference)
    assert grounding_iou(one) == pytest.approx(expected)
    nothing_to_find = record(grounded(think), boxes=())
    assert metrics([one, nothing_to_find])["grounding_iou"] == pytest.approx(expected)
    assert metrics([one, record("no", boxes=reference)])["grounding_iou"] == pytest.approx(expected / 2)


def test_boxes_after_the_reasoning_do_not_ground_it() -> None:
    late = f"<think> a </think> <rethink> {BOX} </rethink> <answer> 1 </answer>"
    assert grounding_iou(record(late)) == 0.0
    assert not is_grounded(record(late))


@pytest.mark.parametrize(
    ("text", "dataset", "expected"),
    [
        (grounded(), "tallyqa", True),
        (grounded(answer="7"), "tallyqa", True),  # wrong, but in form
        (grounded(), "vsr", True),
        (grounded("none"), "tallyqa", False),
        (grounded("none", answer="0"), "tallyqa", True),
        (grounded("none", answer="zero"), "tallyqa", True),
        (grounded("none", answer="0"), "vsr", False),
        (grounded(answer="0"), "tallyqa", True),
        (grounded() + "<answer> 1 </answer>", "tallyqa", False),
        (f"<think> {BOX} </think> <answer> 1 </answer>", "tallyqa", False),
        (f"<rethink> {BOX} </rethink> <think> a </think> <answer> 1 </answer>", "tallyqa", False),
        ("0", "tallyqa", False),
    ],
)
def test_what_is_in_grounded_form(text: str, dataset: str, expected: bool) -> None:
    one = record(text, dataset)
    assert is_grounded(one) is expected
    assert metrics([one, record(grounded())])["grounded_format"] == (1 + expected) / 2


@pytest.mark.parametrize(
    ("text", "dataset", "expected"),
    [
        (grounded(), "tallyqa", 1.0),
        (grounded(answer="2"), "tallyqa", 0.0),
        (grounded(f"{BOX} {BOX}", answer="two"), "tallyqa", 1.0),  # its own answer, be it right or not
        (grounded("none", answer="0"), "tallyqa", 1.0),
        (grounded("none", answer="1"), "tallyqa", 0.0),
        (grounded(answer="many"), "tallyqa", None),
        (grounded(answer="1.5"), "tallyqa", None),
        (grounded(), "vsr", None),
        ("0", "tallyqa", 1.0),
        ("3", "tallyqa", 0.0),
    ],
)
def test_whether_boxes_and_count_agree(text: str, dataset: str, expected: float | None) -> None:
    assert metrics([record(text, dataset)])["count_consistency"] == expected
    left_out = record(grounded(answer="some"))
    assert metrics([record(text, dataset), left_out])["count_consistency"] == expected


def test_lengths_overall_and_by_dataset() -> None:
    ones = [record("a", tokens=2), record("b", tokens=4, finish="length"), record("c", "vsr", tokens=9)]
    values = summary(ones)
    assert list(values) == ["overall", "tallyqa", "vsr"]
    assert [values[name]["tokens"] for name in values] == [5.0, 3.0, 9.0]
    assert [values[name]["truncated"] for name in values] == [pytest.approx(1 / 3), 0.5, 0.0]
    assert [values[name]["samples"] for name in values] == [3, 2, 1]


def test_without_predictions_there_is_nothing_to_say() -> None:
    values = metrics([])
    assert {value for key, value in values.items() if key not in ("samples", "unscored")} == {None}
    assert (values["samples"], values["unscored"]) == (0, 0)
    json.dumps(summary([]), allow_nan=False)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    ones = [record(grounded()), record("line\u2028separator \ud7ff 日本\n"), record(f"{'9' * 400}, 0, 1, 2")]
    write_predictions(tmp_path / "p.jsonl", ones)
    assert read_predictions(tmp_path / "p.jsonl") == ones
    assert len((tmp_path / "p.jsonl").read_bytes().splitlines()) == 3


def test_tables() -> None:
    before, after = summary([record("no"), record("no", "vsr")]), summary([record(grounded()), record("no", "vsr")])
    rows = {line[:20].strip(): line[20:].split() for line in comparison({"before": before, "after": after}).split("\n")}
    assert rows[""] == ["before", "after"]
    assert rows["accuracy"] == ["0.000", "0.500"]
    assert rows["tallyqa"] == ["0.000", "1.000"]
    assert rows["grounding IoU"] == ["0.000", "0.500"]
    assert rows["boxes = count"] == ["-", "1.000"]
    assert rows["samples"] == ["2", "2"]
    assert "unscored" not in rows
    rows = {line[:20].strip(): line[20:].split() for line in overview(after).split("\n")}
    assert rows[""] == ["overall", "tallyqa", "vsr"]
    assert rows["grounded format"] == ["0.500", "1.000", "0.000"]
    assert rows["unscored"] == ["0", "0", "0"]


# ---- the model ----


@pytest.fixture(scope="module")
def talkative(backbone) -> torch.nn.Module:
    """The tiny model with random weights so large that it says different things about different pictures."""
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
    return [dataclasses.replace(one, sample=dataclasses.replace(one.sample, boxes=())) for one in made]


@torch.no_grad()
def test_predictions_do_not_depend_on_the_batch(backbone, talkative, many_prompts) -> None:
    by_id = {prompt.sample.id: prompt for prompt in many_prompts}
    samples = [prompt.sample for prompt in many_prompts]

    def predict(batch_size: int) -> list[Prediction]:
        evaluator = Evaluator(max_new_tokens=12, stop="</answer>", batch_size=batch_size, judge=ExactMatch())
        return evaluator.predict(
            talkative, backbone, samples, lambda sample: by_id[sample.id], what="answering", quiet=True
        )

    alone = predict(1)
    assert [one["sample_id"] for one in alone] == [sample.id for sample in samples]
    assert len({one["text"] for one in alone}) > 10
    for batch_size in (7, 64):
        assert predict(batch_size) == alone


@torch.no_grad()
def test_greedy_takes_the_most_likely_token_that_is_allowed(backbone, talkative, many_prompts) -> None:
    prompt = many_prompts[0]
    (completion,) = evaluation.greedy(talkative, backbone, [prompt], max_new_tokens=6, stop="</answer>")
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
        ({"stop": ""}, "evaluation.stop is empty"),
    ],
)
def test_values_out_of_range_are_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Evaluator(**({"max_new_tokens": 1, "stop": "x", "batch_size": 1, "judge": ExactMatch()} | change))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("total", "quiet", "expected"),
    [
        (100, False, ["what: 32/100 samples", "what: 64/100 samples", "what: 80/100 samples"]),
        (50, False, []),
        (100, True, []),
    ],
)
def test_progress_in_lines_is_a_line_for_each_quarter(total: int, quiet: bool, expected: list[str]) -> None:
    with redirect_stderr(io.StringIO()) as text, evaluation._progress("what", total, quiet=quiet) as advance:
        for _ in range(6):
            advance(16)
    assert text.getvalue().splitlines() == expected


def test_progress_on_a_terminal_is_a_bar_that_goes_away() -> None:
    with redirect_stderr(Terminal()) as text, evaluation._progress("what", 100, quiet=False) as advance:
        advance(100)
    assert "what:   0%" in text.getvalue()
    assert text.getvalue().split("\r")[-2].strip() == ""
