"""Tests of the key-value cache that completions of a prompt share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grit_lightning.rollout import shared_prompt_cache
from support.decoded import LIMIT, G, decoded


@pytest.fixture(scope="module")
def model(backbone):
    return backbone.load_model()


@pytest.mark.parametrize("static", [False, True])
def test_growing_the_cache_does_not_change_completions(backbone, model, prompts, monkeypatch, static: bool) -> None:
    expected = decoded(model, backbone, prompts, [LIMIT] * 12)
    monkeypatch.setattr(shared_prompt_cache, "GROWTH", 3)
    assert decoded(model, backbone, prompts, [LIMIT] * 12, static=static) == expected
    assert decoded(model, backbone, prompts, [*range(9, 21)], static=static) == [
        row[:length] for row, length in zip(expected, range(9, 21), strict=True)
    ]


@torch.no_grad()
def test_attention_stays_float32_under_autocast(backbone, model, prompts) -> None:
    seen: list[Tensor] = []
    product = shared_prompt_cache.product
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(shared_prompt_cache, "product", lambda *given: (seen.append(product(*given)), seen[-1])[1])
        decoded(model, backbone, prompts[:1], [3] * G)
    assert {value.dtype for value in seen} == {torch.float32}
