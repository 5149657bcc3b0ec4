"""Tests of reading stored rollouts for rescoring: exact round trips, and one-line errors about invalid files."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.errors import DataError, UserError
from grit_lightning.rewards.rescoring.stored import count_lines, files_of, read, run_of
from grit_lightning.runs.records import records
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.types import Completion, Group, Prompt, Sample, Score
from support.predicted import predicted
from support.samples import one_image
from support.scoring import score_group

PIECES = (
    *("<think>", "</think>", "<rethink>", "</rethink>", "<answer>", "</answer>", '{"bbox_2d": [1, 1, 9, 9]}', "a cat"),
    *("[10, 20, 60, 80]", "9, 9, 1, 1", "two", "2", "the cat ", "\u2028", "\ud800", "\0", "猫", "9" * 400, "1e200"),
)
SAMPLE = one_image(
    "cats/1", "How many?", "2", Path("cats.jpg"), (640, 480), ((0.1, 0.2, 30.0, 40.0),), "tallyqa", "train", "cats:1"
)


def prompt(sample: Sample = SAMPLE) -> Prompt:
    zeros = torch.zeros(1, dtype=torch.int64)
    return Prompt(sample, "", zeros, zeros[None], {}, ((308, 252),))


def completion(text: str = "<answer>2</answer>") -> Completion:
    return Completion(tuple(range(len(text.split()))), text, "stop", ((308, 252),))


def stored_step(folder: Path, step: int = 1, slots: int = 2) -> Path:
    groups = [Group(slot, prompt(), (completion(), completion("no"))) for slot in range(slots)]
    scores = [(Score({"mine": 0.1}, 0.1), Score({"mine": None}, None, {"mine": "down"}))] * slots
    return RolloutStore(folder).write(step, records(step, groups, scores, torch.zeros(slots, 2)))


def test_a_rollout_is_read_as_it_was_stored(tmp_path: Path) -> None:
    first, second, *_ = read([stored_step(tmp_path, 3)])
    assert (first.sample, first.completion, first.score) == (SAMPLE, completion(), Score({"mine": 0.1}, 0.1))
    assert (first.step, first.slot, first.index, second.index) == (3, 0, 0, 1)
    assert second.score == Score({"mine": None}, None, {"mine": "down"})


def test_rescoring_with_the_same_rewards_reproduces_every_score_exactly(compose_config, tmp_path: Path) -> None:
    rewards = instantiate(compose_config("reward=extras", "rollout.max_new_tokens=20").reward)
    draw = random.Random(0)
    groups = [
        Group(slot, prompt(), tuple(completion(" ".join(draw.choices(PIECES, k=draw.randrange(25)))) for _ in range(4)))
        for slot in range(60)
    ]
    scores = [score_group(rewards, group) for group in groups]
    made = records(1, groups, scores, torch.zeros(60, 4))
    again = list(read([RolloutStore(tmp_path).write(1, made)]))
    assert [rewards.score(one.sample, one.completion) for one in again] == [one.score for one in again]
    assert [one.score for one in again] == [score for of_group in scores for score in of_group]
    for name in rewards.names:
        assert len({one.score.components[name] for one in again}) > 1, f"{name} is the same for all: nothing is shown"


def test_a_prediction_of_an_evaluation_is_read_without_scores(tmp_path: Path) -> None:
    line = json.dumps(predicted(prompt(), completion())[0])
    (tmp_path / "after.jsonl").write_text(f"{line}\n{line}\n")
    one, other = read([tmp_path / "after.jsonl"])
    assert one == other
    assert (one.sample, one.completion) == (SAMPLE, completion())
    assert (one.step, one.slot, one.index, one.score) == (None, None, 0, None)


def test_a_run_is_read_in_order_of_steps_and_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    files = [stored_step(tmp_path / "rollouts", step) for step in (10, 9)]
    assert files_of(tmp_path) == files[::-1]
    assert files_of(files[0]) == [files[0]]
    assert count_lines(files) == 8
    for inside in (tmp_path, files[0], tmp_path / "eval" / "after.jsonl", tmp_path / "eval" / "step_2" / "p.jsonl"):
        assert run_of(inside).path == tmp_path
    assert run_of(tmp_path.parent) is None


def test_a_torn_last_line_of_each_file_is_named_and_left_out(tmp_path: Path) -> None:
    files = [stored_step(tmp_path, step) for step in (1, 2)]
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: content.rindex(b"\n", 0, -1) + 40] + b"\n\n")
    found = list(read(files))
    torn = [str(one) for one in found if isinstance(one, DataError)]
    assert ["DataError" if isinstance(one, DataError) else "Stored" for one in found] == ["Stored"] * 3 + [
        "DataError"
    ] + ["Stored"] * 3 + ["DataError"]
    assert [line.split(": ")[0] for line in torn] == [f"{file}:4" for file in files]
    assert all("not valid JSON" in line and line.endswith("is the line cut off?") for line in torn)


def test_a_torn_line_that_is_not_the_last_is_an_error(tmp_path: Path) -> None:
    file = stored_step(tmp_path)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1][:30], *lines[2:]]))
    with pytest.raises(DataError, match=r":2: not valid JSON \(.+\); is the line cut off\?$"):
        list(read([file]))


def without(name: str):
    return lambda record: {key: value for key, value in record.items() if key != name}


def with_(**fields: object):
    return lambda record: record | fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("box_space"), "field 'box_space' is missing; expected width and height in pixels"),
        (without("token_ids"), "field 'token_ids' is missing; expected a list of token ids"),
        (without("rewards"), "field 'rewards' is missing; expected an object with a number or null for each component"),
        (with_(text=7), "field 'text' is 7; expected text"),
        (with_(image_size=[640, 0]), "field 'image_size' is [640, 0]; expected width and height in pixels"),
        (
            with_(reference_boxes=[[1, 2, 3]]),
            "field 'reference_boxes' is [[1, 2, 3]]; expected a list of [x1, y1, x2, ",
        ),
        (with_(finish="tired"), "field 'finish' is \"tired\"; expected one of stop, eos, length"),
        (with_(finish=[]), "field 'finish' is []; expected one of stop, eos, length"),
        (with_(reward="1"), "field 'reward' is \"1\"; expected a number or null"),
        (
            with_(rewards={"a": True}),
            "field 'rewards' is {\"a\": true}; expected an object with a number or null for each component",
        ),
        (with_(image_size=[10**400, 5]), "field 'image_size' is [1000"),
        (with_(reference_boxes=[[1, 2, 3, 10**400]]), "field 'reference_boxes' is [[1, 2, 3, 1000"),
        (with_(reward=10**400), "field 'reward' is 1000"),
        (
            with_(rewards={"a": float("nan")}),
            "field 'rewards' is {\"a\": NaN}; expected an object with a number or null",
        ),
        (with_(step=10**400), "field 'step' is 1000"),
        (with_(step=None), "field 'step' is null; expected a whole number"),
        (with_(question=["x" * 100]), "field 'question' is [\"" + "x" * 55 + "...; expected text"),
        (with_(completion_index=0), "completion 0 of step 1, slot 0 appears twice"),
        (lambda record: [record], "expected a JSON object"),
    ],
)
def test_an_invalid_record_is_one_sentence_with_file_line_and_field(tmp_path: Path, change, message: str) -> None:
    file = stored_step(tmp_path)
    lines = file.read_text().splitlines()
    lines[1] = json.dumps(change(json.loads(lines[1])))
    file.write_text("\n".join(lines))
    with pytest.raises(DataError) as error:
        list(read([file]))
    assert str(error.value).startswith(f"{file}:2: {message}")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere: does not exist; expected a run folder or a JSONL file of rollouts"),
        ("empty", "empty is not a run folder: it has no manifest.json."),
        ("run", "run/rollouts: no rollouts here."),
    ],
)
def test_a_path_without_rollouts_is_refused(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(UserError) as error:
        files_of(tmp_path / path)
    assert str(error.value) == f"{tmp_path}/{message}"


def test_a_pipe_is_named_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for read_it in (files_of, lambda path: count_lines([path]), lambda path: list(read([path]))):
        with pytest.raises(DataError, match=r"/pipe\.jsonl: is not a regular file$"):
            read_it(tmp_path / "pipe.jsonl")
