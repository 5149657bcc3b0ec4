"""Tests of recomputed activations: the same gradient, no warning, and nothing computed for frozen parts."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.model.packing import pack, plan_rows
from grit_lightning.model.policy import Policy


def gradient(compose_config, prompt, make_group, *overrides: str) -> dict[str, torch.Tensor]:
    backbone = instantiate(compose_config(*overrides).model)
    policy = Policy.load(backbone, temperature=1.0, logits_chunk=16).train()
    group = make_group(prompt, [5, 9])
    policy(pack(plan_rows([group], 1000, [False])[0], [group])).logprobs_T.sum().backward()
    return {name: value.grad for name, value in policy.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("options", [(), ("peft=lora", "peft.rank=4")], ids=["full", "adapters"])
def test_recomputation_changes_no_gradient(compose_config, prompts, make_group, options) -> None:
    kept = gradient(compose_config, prompts[0], make_group, *options)
    again = gradient(compose_config, prompts[0], make_group, *options, "model.gradient_checkpointing=true")
    assert kept.keys() == again.keys()
    for name, value in kept.items():
        torch.testing.assert_close(again[name], value, rtol=1e-5, atol=1e-7)


def test_a_frozen_vision_tower_gets_no_gradient(compose_config, prompts) -> None:
    backbone = instantiate(compose_config("peft=lora", "model.gradient_checkpointing=true").model)
    model = backbone.load_model().train()
    seen: list[bool] = []
    model.model.visual.register_forward_hook(lambda *given: seen.append(given[2].pooler_output.requires_grad))
    model(
        input_ids=prompts[0].input_ids_S[None], position_ids=prompts[0].position_ids_A_S[:, None], **prompts[0].vision
    )
    assert seen == [False]
