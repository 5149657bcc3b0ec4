"""Tests of the JSON record of a completion."""

import json
from dataclasses import replace

import pytest
import torch

from grit_lightning.runs.records import from_record, records
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.types import Score
from support.rollouts import CUT, GOOD, SAMPLE, SCORED, UNSCORED, group, two_records


def test_the_record_of_a_scored_completion_by_hand():
    assert two_records()[0] == {
        "step": 4,
        "slot": 7,
        "sample_id": "tally/3",
        "dataset": "tallyqa",
        "split": "train",
        "source": "tally.jsonl:3",
        "question": "How many cats?",
        "answer": "2",
        "image": "images/cat.jpg",
        "image_size": [640, 480],
        "more_images": [],
        "options": [],
        "extra": {},
        "reference_boxes": [[1.5, 2.0, 30.0, 40.0]],
        "reference_images": [1],
        "reference_labels": [None],
        "reference_completion": None,
        # printf 'USER: How many cats?' | sha256sum
        "prompt_sha256": "61ef311339a53047619e831acf2066571621b7ba7bcc937910cfe0de65808a0c",
        "completion_index": 0,
        "text": GOOD.text,
        "finish": "stop",
        "num_tokens": 3,
        "token_ids": [5, 6, 7],
        "parsed_answer": "2",
        "box_space": [320, 120],
        "more_box_spaces": [],
        # The model's space is half as wide and a quarter as high as the image.
        "boxes": [
            {
                "label": "cat",
                "form": "json",
                "image": 1,
                "model": [16.0, 12.0, 32.0, 24.0],
                "pixels": [32.0, 48.0, 64.0, 96.0],
                "valid": True,
            },
            {
                "label": None,
                "form": "plain",
                "image": 1,
                "model": [40.0, 8.0, 30.0, 20.0],
                "pixels": [80.0, 32.0, 60.0, 80.0],
                "valid": False,
            },
        ],
        "rewards": {"format": 0.5, "judge": 1.0},
        "reward": 1.5,
        "reward_errors": {},
        "advantage": 0.75,
    }


def test_the_record_of_an_unscored_completion_holds_null_and_the_reason():
    record = two_records()[1]
    assert (record["rewards"], record["reward"], record["advantage"]) == ({"format": 0.0, "judge": None}, None, None)
    assert record["reward_errors"] == {"judge": "timeout after 3 tries"}
    assert (record["parsed_answer"], record["boxes"], record["completion_index"]) == (None, [], 1)


def test_advantages_go_to_their_own_completion():
    groups = [group(0), group(1)]
    made = records(0, groups, [(SCORED, UNSCORED), (UNSCORED, SCORED)], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert [(r["slot"], r["completion_index"], r["reward"], r["advantage"]) for r in made] == [
        (0, 0, 1.5, 1.0),
        (0, 1, None, 2.0),
        (1, 0, None, 3.0),
        (1, 1, 1.5, 4.0),
    ]


def test_missing_score_is_refused():
    with pytest.raises(ValueError, match="zip"):
        records(0, [group()], [(SCORED,)], torch.zeros(1, 2))


def test_sample_and_completion_are_restored_from_the_record(tmp_path):
    store = RolloutStore(tmp_path)
    store.write(4, two_records())
    assert [from_record(record) for record in store.read(4)] == [(SAMPLE, GOOD), (SAMPLE, CUT)]


def test_a_reference_completion_is_restored_and_older_records_have_none(tmp_path):
    taught = replace(SAMPLE, completion="<think></think>")
    made = group(completions=(GOOD,))
    (record,) = records(0, [replace(made, prompt=replace(made.prompt, sample=taught))], [(SCORED,)], torch.ones(1, 1))
    assert from_record(record) == (taught, GOOD)
    del record["reference_completion"]
    assert from_record(record) == (SAMPLE, GOOD)


def test_non_finite_numbers_become_null(tmp_path):
    huge = replace(GOOD, text=f"<think>{'9' * 400}, 1, 2, 3<rethink>")
    score = Score(components={"mine": float("nan")}, total=float("inf"))
    made = records(0, [group(completions=(huge,))], [(score,)], torch.tensor([[1.0]]))
    path = RolloutStore(tmp_path).write(0, made)

    def refuse(constant):
        raise AssertionError(constant)

    record = json.loads(path.read_text(), parse_constant=refuse)
    assert record["boxes"][0]["model"] == [None, 1.0, 2.0, 3.0]
    assert record["boxes"][0]["pixels"] == [None, 4.0, 4.0, 12.0]
    assert (record["rewards"], record["reward"]) == ({"mine": None}, None)
