"""Tests of the key-value cache that completions of a prompt share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grit_lightning.rollout import decoding, shared_prompt_cache
from support.decoded import LIMIT, G, decoded


@pytest.fixture(scope="module")
def model(backbone):
    return backbone.load_model()


def test_the_number_of_places_that_a_static_cache_attends_to_does_not_change_completions(
    backbone, model, prompts, monkeypatch
) -> None:
    expected = decoded(model, backbone, prompts, [LIMIT] * 12)
    monkeypatch.setattr(shared_prompt_cache, "FIRST_PLACES", 3)
    assert decoded(model, backbone, prompts, [LIMIT] * 12, static=True) == expected
    assert decoded(model, backbone, prompts, [*range(9, 21)], static=True) == [
        row[:length] for row, length in zip(expected, range(9, 21), strict=True)
    ]


def test_a_static_cache_is_not_disturbed_by_what_its_memory_held_before(backbone, model, prompts) -> None:
    expected = decoded(model, backbone, prompts[:1], [LIMIT] * G)
    decoded(model, backbone, prompts, [LIMIT] * 12, static=True)
    for memory in decoding._MEMORIES[model]._flat.values():
        memory.fill_(torch.nan if memory.is_floating_point() else 1)
    assert decoded(model, backbone, prompts[:1], [LIMIT] * G, static=True) == expected


@torch.no_grad()
def test_attention_stays_float32_under_autocast(backbone, model, prompts) -> None:
    seen: list[Tensor] = []
    product = shared_prompt_cache.product
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(shared_prompt_cache, "product", lambda *given: (seen.append(product(*given)), seen[-1])[1])
        decoded(model, backbone, prompts[:1], [3] * G)
    assert {value.dtype for value in seen} == {torch.float32}
