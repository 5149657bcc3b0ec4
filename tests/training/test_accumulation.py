"""Tests of what is lost when gradients of micro-batches add up in bf16, beside what bf16 arithmetic itself changes."""

from __future__ import annotations

import torch
from hydra.utils import instantiate

from grit_lightning.model.packing import pack, plan_rows
from grit_lightning.model.policy import Policy

PASSES = 17


def gradient(policy: Policy, groups: list, *, wide: bool) -> torch.Tensor:
    """Return the gradient of a cross-entropy, one pass for each group, summed in float32 or in the weights' type."""
    total: dict[str, torch.Tensor] = {}
    for group in groups:
        policy(pack(plan_rows([group], 10_000, [False])[0], [group])).logprobs_T.sum().div(1000).backward()
        if wide:
            for name, value in policy.named_parameters():
                total[name] = total.get(name, 0) + value.grad.float()
            policy.zero_grad(set_to_none=True)
    return torch.cat([value.flatten() for value in total.values()] or [v.grad.flatten() for v in policy.parameters()])


def test_sums_in_bf16_lose_less_than_a_hundredth_and_far_less_than_bf16_arithmetic(
    compose_config, make_prompt, make_group
) -> None:
    groups = [make_group(make_prompt(slot), [20, 30, 40, 50], slot) for slot in range(PASSES)]
    policies = {}
    for dtype in ("bfloat16", "float32"):
        backbone = instantiate(compose_config(f"model.dtype={dtype}", "model.random_weights_seed=null").model)
        policies[dtype] = Policy.load(backbone, temperature=1.0, logits_chunk=64)
    exact = gradient(policies["float32"], groups, wide=True)
    summed = gradient(policies["bfloat16"], groups, wide=True)
    narrow = gradient(policies["bfloat16"], groups, wide=False).float()
    lost = (narrow - summed).norm() / summed.norm()
    arithmetic = (summed - exact).norm() / exact.norm()
    assert 0 < lost < 0.01
    assert lost < 0.1 * arithmetic
