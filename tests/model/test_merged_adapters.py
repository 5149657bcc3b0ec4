"""Tests of adapters that are merged for a while: the same outputs, the same weights afterwards, whatever happens."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from peft.tuners.tuners_utils import BaseTunerLayer

from grit_lightning.model.merged_adapters import merged
from grit_lightning.rollout.choice import Draw
from grit_lightning.rollout.decoding import decode
from support.decoded import After


@pytest.fixture(params=["float32", "bfloat16"])
def model(request, compose_config):
    options = ("peft=lora", "peft.rank=4", f"model.dtype={request.param}")
    model = instantiate(compose_config(*options).model).load_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value += 0.05 * torch.randn(value.shape, generator=generator)
    return model


def state(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@torch.no_grad()
def logits(model, prompt) -> torch.Tensor:
    arguments = {"input_ids": prompt.input_ids_S[None], "position_ids": prompt.position_ids_A_S[:, None]}
    return model(**arguments, **prompt.vision).logits.float()


def same(model, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_outputs_are_those_of_the_adapters_and_weights_come_back_bit_by_bit(model, prompts) -> None:
    before, expected = state(model), logits(model, prompts[0])
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    without = {name: value for name, value in before.items() if "lora_" not in name}
    for _ in range(2):
        with merged(model):
            assert not same(model, without | before)
            found = logits(model, prompts[0])
        assert same(model, before)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == trained
    model.disable_adapters()
    change = (logits(model, prompts[0]) - expected).norm()
    model.enable_adapters()
    tolerance = 1e-5 if model.dtype == torch.float32 else 0.2
    assert (found - expected).norm() < tolerance * change
    assert torch.equal(logits(model, prompts[0]), expected)


def test_weights_come_back_after_an_error_and_blocks_may_be_nested(model, prompts) -> None:
    before = state(model)
    with pytest.raises(RuntimeError, match="stopped"), merged(model):
        inside = state(model)
        with merged(model):
            assert same(model, inside)
        assert same(model, inside)
        raise RuntimeError("stopped")
    assert same(model, before)
    assert not any(layer.disable_adapters for layer in model.modules() if isinstance(layer, BaseTunerLayer))


def test_rollouts_of_merged_adapters_are_those_of_the_adapters(model, backbone, prompts) -> None:
    if model.dtype != torch.float32:
        pytest.skip("bf16 rounds the merged weights, so that draws may differ")

    @torch.no_grad()
    def tokens() -> list[list[int]]:
        draw, ends = Draw(1.0, 0, 1.0, backbone.banned_token_ids), After((9,) * 6)
        options = {"generations": 2, "max_new_tokens": 9, "choose": draw, "ends": ends, "static": False}
        return decode(model, prompts, torch.arange(6) * 7919, **options).tokens_B_T.tolist()

    expected = tokens()
    with merged(model):
        assert tokens() == expected


def test_without_adapters_nothing_happens(backbone) -> None:
    model = backbone.load_model()
    before = state(model)
    with merged(model):
        assert same(model, before)
