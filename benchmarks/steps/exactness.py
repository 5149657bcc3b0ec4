"""Checks on a device that optimizations do not change results, on the bundled model's size with random weights.

Each check takes a device and returns the largest difference from a slow reference computation, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from grit_lightning.model import varlen
from grit_lightning.model.merged_adapters import merged
from grit_lightning.model.packing import pack, plan_rows
from grit_lightning.model.policy import Policy
from grit_lightning.rollout.choice import Draw
from grit_lightning.rollout.decoding import Decoded, decode
from grit_lightning.rollout.noise import _draw, fused, sequence_key
from grit_lightning.types import Completion, Group
from steps.lengths import Forced
from steps.ours import MeasuredModule, batches, module_of
from steps.sizes import TINY

SIZE = replace(TINY, prompts=3, generations=4, new_tokens=200)

Check = Callable[[torch.device], tuple[float, float]]


def _groups(module: MeasuredModule) -> list[Group]:
    """Return groups of completions of random tokens and of different lengths."""
    generator = torch.Generator().manual_seed(0)
    groups = []
    for slot, (sample, image) in next(batches(SIZE)).prompts:
        prompt = module.backbone.encode(sample, [image])
        lengths = torch.randint(1, 60, (SIZE.generations,), generator=generator).tolist()
        ids = [torch.randint(10, 480, (length,), generator=generator).tolist() for length in lengths]
        groups.append(
            Group(slot, prompt, tuple(Completion(tuple(tokens), "", "length", prompt.box_spaces) for tokens in ids))
        )
    return groups


def _packed(device: torch.device, dtype: torch.dtype, max_tokens: int, *, fast: bool) -> Tensor:
    """Return log-probabilities and gradient of random completions as one vector.

    Args:
        device: device to compute on.
        dtype: dtype of the weights, whose values are those of bf16 in any case.
        max_tokens: token limit of a pass; 1 for one completion a pass.
        fast: compute attention with the kernels that training uses; otherwise with torch's plain arithmetic.
    """
    module, _ = module_of(SIZE)
    policy = Policy.load(module.backbone, temperature=0.9, logits_chunk=50).to(device).requires_grad_(True)
    policy.model.to(torch.bfloat16).to(dtype)
    groups = _groups(module)
    count = sum(len(completion.token_ids) for group in groups for completion in group.completions)
    logprobs = torch.zeros(count, device=device)
    has_varlen = varlen.has_varlen
    varlen.has_varlen = has_varlen if fast else (lambda _: False)
    try:
        for rows in plan_rows(groups, max_tokens, [False] * len(groups)):
            batch = pack(rows, groups).to(device)
            with sdpa_kernel(list(SDPBackend.__members__.values()) if fast else SDPBackend.MATH):
                values = policy(batch).logprobs_T
                (values.square().sum() / count).backward()
            logprobs[batch.token_T] = values.detach()
    finally:
        varlen.has_varlen = has_varlen
    gradient = torch.cat([v.grad.flatten().float() for v in policy.parameters() if v.grad is not None])
    return torch.cat([logprobs / logprobs.norm(), gradient / gradient.norm()])


def packed_float32(device: torch.device) -> tuple[float, float]:
    """Compare packed passes in float32 with passes of one completion each (relative)."""
    expected = _packed(device, torch.float32, 1, fast=False)
    return _distance(_packed(device, torch.float32, 100_000, fast=True), expected), 1e-4


def packed_bf16(device: torch.device) -> tuple[float, float]:
    """Divide the error of packed passes in bf16 by that of plain bf16 arithmetic, both against float32."""
    expected = _packed(device, torch.float32, 1, fast=False)
    plain = _distance(_packed(device, torch.bfloat16, 1, fast=False), expected)
    return _distance(_packed(device, torch.bfloat16, 100_000, fast=True), expected) / plain, 1.5


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@dataclass(frozen=True)
class Recording:
    """A choice of tokens that keeps the log-probability of each chosen token."""

    draw: Draw
    kept: list[Tensor]

    def __hash__(self) -> int:
        return id(self)

    def __call__(self, logits_N_V: Tensor, keys_N: Tensor, position: Tensor) -> Tensor:
        """Return the next token of each row."""
        logprobs_N_V = logits_N_V.index_fill(1, _banned(self.draw, logits_N_V), -torch.inf).log_softmax(dim=1)
        token_N = self.draw(logits_N_V, keys_N, position)
        self.kept.append(logprobs_N_V.gather(1, token_N[:, None])[:, 0])
        return token_N


def _banned(draw: Draw, like: Tensor) -> Tensor:
    return torch.tensor(draw.banned, device=like.device)


@torch.no_grad()
def _decoded(module: MeasuredModule, model: PreTrainedModel, *, static: bool, kept: list[Tensor] | None) -> Decoded:
    prompts = [group.prompt for group in _groups(module)]
    count = SIZE.prompts * SIZE.generations
    draw = Draw(1.0, 0, 1.0, module.backbone.banned_token_ids)
    # Unequal lengths, so that the batch shrinks; all equal where log-probabilities are kept by row.
    lengths = tuple(range(20, 20 + 15 * count, 15)) if kept is None else (40,) * count
    return decode(
        model,
        prompts,
        torch.arange(count, device=model.device) * 7919,
        generations=SIZE.generations,
        max_new_tokens=max(lengths),
        choose=draw if kept is None else Recording(draw, kept),
        ends=Forced(lengths),
        static=static,
    )


def graphs(device: torch.device) -> tuple[float, float]:
    """Return the share of tokens that differ between static memory (CUDA graphs, twice) and eager decoding."""
    module, _ = module_of(SIZE)
    model = module.backbone.load_model().to(device)
    eager, *static = (_decoded(module, model, static=static, kept=None) for static in (False, True, True))
    width = eager.lengths_B.max()
    written = torch.arange(width, device=device) < eager.lengths_B[:, None]
    differ = [(eager.tokens_B_T != one.tokens_B_T[:, :width]) & written for one in static]
    return float(torch.stack(differ).sum() / written.sum()), 0.0


def sampled_logprobs(device: torch.device, dtype: torch.dtype, allowed: float) -> tuple[float, float]:
    """Return the mean difference between log-probabilities while sampling and those of the training pass, in nats."""
    module, _ = module_of(SIZE)
    model = module.backbone.load_model().to(device, dtype)
    kept: list[Tensor] = []
    found = _decoded(module, model, static=False, kept=kept)
    groups = [
        replace(group, completions=tuple(Completion(tuple(row), "", "stop", ((1, 1),)) for row in rows))
        for group, rows in zip(
            _groups(module), found.tokens_B_T.view(SIZE.prompts, SIZE.generations, -1).tolist(), strict=True
        )
    ]
    policy = Policy(model, banned_token_ids=module.backbone.banned_token_ids, temperature=1.0, logits_chunk=64)
    with torch.no_grad():
        batch = pack(plan_rows(groups, 100_000, [False] * len(groups))[0], groups).to(device)
        logprobs = torch.zeros(found.tokens_B_T.numel(), device=device)
        logprobs[batch.token_T] = policy(batch).logprobs_T
    return float((logprobs - torch.stack(kept, dim=1).flatten()).abs().mean()), allowed


def compiled_draw(device: torch.device) -> tuple[float, float]:
    """Return the share of draws in which the compiled noise chooses another token than the eager one."""
    scores = 3 * torch.randn(64, 20_000, generator=torch.Generator().manual_seed(0)).to(device)
    keys = torch.tensor([sequence_key(0, 0, slot, 0) for slot in range(64)], device=device)
    position = torch.tensor([5], device=device)
    given = scores, keys, position, torch.zeros(20_000, dtype=torch.bool, device=device), 0.9
    return float((fused(_draw)(*given) != _draw(*given)).float().mean()), 0.0


@torch.no_grad()
def merged_adapters(device: torch.device) -> tuple[float, float]:
    """Compare logits with adapters merged and beside the weights (relative), and weights before and after."""
    module, _ = module_of(SIZE, "peft=lora", "peft.rank=8")
    model = module.backbone.load_model().to(device)
    for value in model.parameters():
        if value.requires_grad:
            value += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(device)
    before = [value.clone() for value in model.parameters()]
    prompt = _groups(module)[0].prompt
    arguments = {
        "input_ids": prompt.input_ids_S[None],
        "position_ids": prompt.position_ids_A_S[:, None],
        **prompt.vision,
    }
    arguments = {name: value.to(device) for name, value in arguments.items()}
    expected = model(**arguments).logits
    with merged(model):
        found = model(**arguments).logits
    changed = sum(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return _distance(found, expected) + changed, 1e-4


CHECKS: Mapping[str, Check] = {
    "packed, float32, against one completion a pass in plain arithmetic": packed_float32,
    "error of packed bf16 / error of plain bf16": packed_bf16,
    "share of other tokens, static memory (graphs on CUDA), against eager": graphs,
    "log-probability of sampled tokens, float32, nats": partial(sampled_logprobs, dtype=torch.float32, allowed=1e-4),
    "log-probability of sampled tokens, bf16, nats": partial(sampled_logprobs, dtype=torch.bfloat16, allowed=0.05),
    "share of other tokens, compiled noise": compiled_draw,
    "adapters merged, float32, against beside the weights": merged_adapters,
}
"""Checks by the name that the table shows."""
