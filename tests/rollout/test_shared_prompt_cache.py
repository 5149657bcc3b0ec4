"""Tests of the key-value cache that completions of a prompt share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.model.packing import concatenate_vision
from grit_lightning.rollout import shared_prompt_cache
from grit_lightning.rollout.decoding import decode
from grit_lightning.rollout.noise import draw_tokens
from grit_lightning.rollout.sampler import left_pad
from grit_lightning.types import Prompt

G = 4


LIMIT = 20


@pytest.fixture(scope="module")
def model(backbone):
    return backbone.load_model()


@torch.no_grad()
def decoded(
    model, backbone: PretrainedBackbone, prompts: Sequence[Prompt], lengths: Sequence[int], *, static: bool = False,
    generations: int = G,
) -> list[list[int]]:  # fmt: skip
    """Return sampled tokens; completion ``i`` ends after ``lengths[i]`` tokens, whatever they are."""
    keys = torch.arange(len(prompts) * generations) * 7919
    ends = torch.tensor(lengths)
    banned = torch.tensor(backbone.banned_token_ids)
    tokens = decode(
        model,
        left_pad(prompts, backbone.pad_token_id),
        concatenate_vision(prompts),
        generations=generations,
        max_new_tokens=LIMIT,
        pad_token_id=backbone.pad_token_id,
        choose=lambda logits, rows, place: draw_tokens(logits.index_fill(1, banned, -torch.inf), keys[rows], place),
        finished=lambda ids, _: ids.shape[1] >= ends,
        static=static,
    )
    for row, length in zip(tokens, lengths, strict=True):
        assert (row[length:] == backbone.pad_token_id).all()
    return [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]


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
    product = shared_prompt_cache._product
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(shared_prompt_cache, "_product", lambda *given: (seen.append(product(*given)), seen[-1])[1])
        decoded(model, backbone, prompts[:1], [3] * G)
    assert {value.dtype for value in seen} == {torch.float32}
