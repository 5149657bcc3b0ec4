"""Tests of completions that are read while they grow."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from grit_lightning.rollout.choice import Draw, Greedy
from grit_lightning.rollout.engine import complete
from grit_lightning.rollout.streaming import stream

LIMITS: dict[str, Any] = {"max_new_tokens": 60, "stop": "</answer>"}


@pytest.fixture(scope="module")
def model(backbone):
    return backbone.load_model()


def decoding() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "decoding"]


@pytest.mark.parametrize("sampled", [False, True])
def test_it_grows_into_the_completion_that_is_decoded_at_once(backbone, model, prompts, sampled) -> None:
    banned = backbone.banned_token_ids
    choose = Draw(1.0, 0, 1.0, banned) if sampled else Greedy(banned)
    *growing, last = stream(model, backbone, prompts[0], choose=choose, key=7, **LIMITS)
    with torch.no_grad():
        (whole,) = complete(model, backbone, prompts[:1], [7], choose=choose, **LIMITS)
    assert last == whole
    lengths = [len(one.token_ids) for one in growing]
    assert lengths == sorted(lengths)
    assert all(one.token_ids == whole.token_ids[: len(one.token_ids)] for one in growing)
    assert {one.finish for one in growing} <= {"length"}
    assert not decoding()


def test_closing_it_ends_the_decoding(backbone, model, prompts) -> None:
    position = []

    def slow(logits_N_V, keys_N, place):
        position.append(int(place))
        return Greedy(backbone.banned_token_ids)(logits_N_V, keys_N, place)

    reading = stream(model, backbone, prompts[0], choose=slow, key=0, max_new_tokens=5000, stop="never")
    next(reading)
    reading.close()
    assert not decoding()
    assert len(position) < 5000


def test_an_error_of_the_decoding_reaches_the_reader(backbone, model, prompts) -> None:
    def broken(logits_N_V, keys_N, position):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream(model, backbone, prompts[0], choose=broken, key=0, **LIMITS))
