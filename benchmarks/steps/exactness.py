"""Checks on a device that optimizations do not change results.

Each check returns the largest difference from a slow reference computation, and the difference that is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from grit_lightning.model.packing import concatenate_vision, pack, plan_rows
from grit_lightning.model.policy import Policy
from grit_lightning.rollout.decoding import decode
from grit_lightning.rollout.noise import draw_tokens
from grit_lightning.rollout.sampler import left_pad
from grit_lightning.types import Completion, Group
from steps.ours import MeasuredModule, batches, module_of
from steps.sizes import TINY

SIZE = replace(TINY, prompts=3, generations=4, new_tokens=200)


def _groups(module: MeasuredModule) -> list[Group]:
    """Return groups of completions of random tokens and of different lengths."""
    generator = torch.Generator().manual_seed(0)
    groups = []
    for slot, pair in next(batches(SIZE)).prompts:
        prompt = module.backbone.encode(*pair)
        lengths = torch.randint(1, 60, (SIZE.generations,), generator=generator).tolist()
        ids = [torch.randint(10, 480, (length,), generator=generator).tolist() for length in lengths]
        groups.append(
            Group(slot, prompt, tuple(Completion(tuple(tokens), "", "length", prompt.box_space) for tokens in ids))
        )
    return groups


def _packed(device: torch.device, max_tokens: int) -> tuple[Tensor, Tensor]:
    """Compute log-probabilities and gradient of random completions on ``device``.

    Args:
        device: device to compute on.
        max_tokens: token limit of a pass.

    Returns:
        The log-probabilities of all tokens, and the gradient of all parameters as one vector.
    """
    module, _ = module_of(SIZE)
    policy = Policy.load(module.backbone, temperature=0.9, logits_chunk=50).to(device).requires_grad_(True)
    groups = _groups(module)
    count = sum(len(completion.token_ids) for group in groups for completion in group.completions)
    logprobs = torch.zeros(count, device=device)
    for rows in plan_rows(groups, max_tokens, [False] * len(groups)):
        batch = pack(rows, groups).to(device)
        values = policy(batch).logprobs_T
        logprobs[batch.token_T] = values.detach()
        (values.square().sum() / count).backward()
    parts = [value.grad.flatten() for value in policy.parameters() if value.grad is not None]
    return logprobs, torch.cat(parts)


def _difference(device: torch.device, max_tokens: int) -> float:
    """Return the largest relative difference from passes of one completion each."""
    expected, found = _packed(device, 1), _packed(device, max_tokens)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def _decoded(device: torch.device, *, static: bool) -> Tensor:
    module, _ = module_of(SIZE)
    model, backbone = module.backbone.load_model().to(device), module.backbone
    prompts = [group.prompt for group in _groups(module)]
    keys = torch.arange(SIZE.prompts * SIZE.generations, device=device) * 7919
    ends = torch.arange(20, 20 + 15 * len(keys), 15, device=device)  # one after the other, so the batch shrinks
    with torch.no_grad():
        return decode(
            model,
            {name: value.to(device) for name, value in left_pad(prompts, backbone.pad_token_id).items()},
            {name: value.to(device) for name, value in concatenate_vision(prompts).items()},
            generations=SIZE.generations,
            max_new_tokens=SIZE.new_tokens,
            pad_token_id=backbone.pad_token_id,
            choose=lambda logits, rows, place: draw_tokens(logits, keys[rows], place),
            finished=lambda ids, _: ids.shape[1] >= ends,
            static=static,
        )


def packed(device: torch.device) -> tuple[float, float]:
    """Compare log-probabilities and gradient of packed completions with passes of one completion each."""
    return _difference(device, 100_000), 1e-4


def graphs(device: torch.device) -> tuple[float, float]:
    """Return the share of sampled tokens that differ between static cache (CUDA graphs) and eager decoding."""
    return float((_decoded(device, static=True) != _decoded(device, static=False)).float().mean()), 0.0


CHECKS: Mapping[str, Callable[[torch.device], tuple[float, float]]] = {
    "packed, against one completion a pass (relative)": packed,
    "tokens of a static cache, on CUDA as graphs, against eager": graphs,
}
