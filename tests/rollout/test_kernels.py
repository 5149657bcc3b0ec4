"""Counts of a decoding step at the size of Qwen2.5-VL-3B: kernels, converted weights, nothing the host waits for."""

from __future__ import annotations

import pytest
import torch

from grit_lightning.model.merged_adapters import merged
from grit_lightning.rollout.choice import Draw
from grit_lightning.rollout.decoding import _Batch
from grit_lightning.rollout.shared_prompt_cache import SharedPromptCache
from grit_lightning.rollout.static_memory import StaticMemory
from support.decoded import After
from support.fake_gpu import Kernels
from support.real_size import Recipe

PROMPTS, G, LIMIT = 32, 4, 1000


def step_of(recipe: Recipe, name: str) -> Kernels:
    """Count a step. Fake tensors have no values, so that an operation that the host waits for raises an error."""
    prompt = recipe.prompt()
    model, cpu = recipe.model(), torch.device("cpu")
    with recipe.mode, torch.no_grad(), merged(model):
        cache = SharedPromptCache(
            [prompt.num_tokens] * PROMPTS, G, LIMIT, memory=StaticMemory(), device=cpu, static=True
        )
        count = PROMPTS * G
        keys, ends = torch.zeros(count, dtype=torch.long), After((LIMIT,) * count)
        batch = _Batch(model, cache, [prompt] * PROMPTS, keys, LIMIT, Draw(0.9, 0, 1.0, (1, 2)), ends)
        text = model.config.get_text_config()
        size = text.hidden_size // text.num_attention_heads
        shape = (1, text.num_key_value_heads, prompt.num_tokens * PROMPTS, size)
        for layer in range(text.num_hidden_layers):
            cache.fill(layer, *torch.empty(2, *shape, dtype=torch.bfloat16))
        cache.make_room()
        with Kernels(model) as kernels:
            batch.step()
    return kernels


@pytest.mark.parametrize("name", ["qwen3b", "qwen3b_lora"])
def test_kernels_of_a_decoding_step_with_and_without_adapters(recipe, monkeypatch, name: str) -> None:
    # On a GPU, the choice of a token is one more kernel (test_noise).
    monkeypatch.setattr("grit_lightning.rollout.choice.draw_tokens", lambda logits, *_, **__: logits.argmax(dim=-1))
    kernels = step_of(recipe(name), name)
    assert kernels.cast_bytes == 0
    assert kernels.total <= 1969
    assert kernels.calls["aten.mm.default"] + kernels.calls["aten.addmm.default"] == 36 * 7
    assert kernels.calls["aten._softmax.default"] == 36
