"""Tests of rollouts: independent of the batch, a function of seed and counters, never a banned token."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GenerationConfig,
)

from grit_lightning.errors import ConfigError
from grit_lightning.rollout.sampler import Sampler

DEFAULTS = {
    "num_generations": 3,
    "max_new_tokens": 24,
    "temperature": 0.9,
    "top_k": 0,
    "top_p": 1.0,
    "stop": "</answer>",
    "max_sequences": 100,
}


def sampler(**changes) -> Sampler:
    return Sampler(**(DEFAULTS | changes))


@pytest.fixture(scope="module")
def model(backbone):
    return backbone.load_model()


def token_ids(groups) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group.completions] for group in groups]


@torch.no_grad()
def test_rollouts_do_not_depend_on_batch_composition(backbone, model, prompts) -> None:
    pairs = list(enumerate(prompts))
    together = sampler().rollout(model, backbone, pairs, step=2, seed=0)
    assert token_ids(sampler(max_sequences=1).rollout(model, backbone, pairs, step=2, seed=0)) == token_ids(together)
    backwards = sampler().rollout(model, backbone, pairs[::-1], step=2, seed=0)
    assert token_ids(backwards[::-1]) == token_ids(together)
    assert [group.slot for group in backwards] == [2, 1, 0]
    alone = sampler(num_generations=2).rollout(model, backbone, pairs[1:2], step=2, seed=0)
    assert token_ids(alone)[0] == token_ids(together)[1][:2]


@torch.no_grad()
def test_step_seed_slot_and_sample_each_change_the_draw(backbone, model, prompts) -> None:
    draw = lambda slot, step, seed: token_ids(  # noqa: E731
        sampler().rollout(model, backbone, [(slot, prompts[0])], step=step, seed=seed)
    )[0]
    first = draw(0, 0, 0)
    assert len(set(first)) == 3
    assert first == draw(0, 0, 0)
    assert not set(first) & {*draw(1, 0, 0), *draw(0, 1, 0), *draw(0, 0, 1)}


@torch.no_grad()
def test_banned_tokens_are_never_sampled(backbone, model, prompts) -> None:
    groups = sampler(temperature=50.0, num_generations=16).rollout(
        model, backbone, list(enumerate(prompts)), step=0, seed=0
    )
    sampled = {token for group in groups for completion in group.completions for token in completion.token_ids}
    assert len(sampled) > 100
    assert not sampled & set(backbone.banned_token_ids)


@torch.no_grad()
def test_the_generation_config_of_the_checkpoint_is_ignored(backbone, prompts, tmp_path) -> None:
    folder = tmp_path / "model"
    backbone.load_model().save_pretrained(folder)
    GenerationConfig(do_sample=True, repetition_penalty=3.0, temperature=1e-6, top_k=1).save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    backbone.image_processor.save_pretrained(folder)
    other = type(backbone)(
        checkpoint=str(folder), prompt=backbone.prompt, prefill="", min_pixels=3136, max_pixels=100352, max_tiles=4,
        dtype="float32", attn_implementation="auto", gradient_checkpointing=False, random_weights_seed=None,
        peft=None, freeze=(),
    )  # fmt: skip
    pairs = list(enumerate(prompts))
    expected = sampler().rollout(backbone.load_model(), backbone, pairs, step=0, seed=0)
    assert token_ids(sampler().rollout(other.load_model(), other, pairs, step=0, seed=0)) == token_ids(expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_generations": 1}, "num_generations is 1, expected at least 2"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_k": -1}, "top_k is -1"),
    ],
)
def test_values_out_of_range_are_named(change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sampler(**change)
