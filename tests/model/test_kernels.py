"""Counts of a pass of the update at the size of Qwen2.5-VL-3B: kernels, calls of attention, converted weights."""

from __future__ import annotations

import pytest

from grit_lightning.model.policy import Policy
from support.fake_gpu import Kernels

LAYERS, BLOCKS = 36, 32
"""Layers of the language model and of the vision tower."""

FORWARD, BACKWARD = "torch_attn._varlen_attn.default", "torch_attn._varlen_attn_backward.default"


@pytest.mark.slow
def test_kernels_of_a_packed_pass_and_one_call_of_attention_a_layer(recipe) -> None:
    made = recipe("qwen3b")
    prompt, model = made.prompt(), made.model()
    with made.mode:
        policy = Policy(model, banned_token_ids=(1, 2), temperature=0.9, logits_chunk=1024).train()
        batch = made.first_pass(prompt, length=20)
        policy(batch).logprobs_T.sum().backward()
        with Kernels(model) as kernels:  # of a pass that adds to gradients
            policy(batch).logprobs_T.sum().backward()
    assert 7700 < len(batch.input_ids_S) <= 7800
    assert kernels.total <= 15_000
    assert kernels.calls[FORWARD] == 2 * (LAYERS + BLOCKS)  # once more in the backward pass, with recomputation
    assert kernels.calls[BACKWARD] == LAYERS + BLOCKS
    assert not any("scaled_dot_product" in name for name in kernels.calls)
    assert kernels.cast_bytes == 0
