"""Sampling of completions: G samples per prompt, or one greedy completion.

This module groups prompts of similar length and chooses the tokens; :mod:`.decoding` runs the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    PreTrainedModel,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from grit_lightning.errors import ConfigError
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.model.packing import concatenate_vision
from grit_lightning.rollout.decoding import Choose, decode
from grit_lightning.rollout.noise import draw_tokens, sequence_key
from grit_lightning.rollout.stopping import FinishRecorder
from grit_lightning.types import Completion, Group, Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A sampler of groups of completions. Values live in ``conf/rollout``.

    Attributes:
        num_generations: G, completions per prompt, at least 2, because a group of one has no relative advantage.
        max_new_tokens: limit on the tokens of a completion; one that reaches it unfinished is recorded as truncated.
        temperature: sampling temperature, > 0. The policy computes log-probabilities at the same temperature.
        top_k: number of most likely tokens to sample from; 0 for all. A limit makes rollouts slightly off-policy.
        top_p: total probability of the smallest set of tokens to sample from; 1 for all.
        stop: text that ends a completion and is part of it.
        max_sequences: number of completions decoded at once, which limits the memory of the cache.
    """

    num_generations: int
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    stop: str
    max_sequences: int

    def __post_init__(self) -> None:
        if self.num_generations < 2:
            raise ConfigError(
                f"rollout.num_generations is {self.num_generations}, expected at least 2: "
                "a completion's advantage is relative to the others of its group"
            )
        for key in ("max_new_tokens", "max_sequences"):
            if getattr(self, key) < 1:
                raise ConfigError(f"rollout.{key} is {getattr(self, key)}, expected a whole number of at least 1")
        if not self.stop:
            raise ConfigError("rollout.stop is empty, expected the text that ends a completion, such as </answer>")
        if self.temperature <= 0:
            raise ConfigError(f"rollout.temperature is {self.temperature}, expected a number above 0")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"rollout.top_k is {self.top_k} and rollout.top_p is {self.top_p}, expected top_k ≥ 0 and 0 < top_p ≤ 1"
            )

    def rollout(
        self, model: PreTrainedModel, backbone: Backbone, prompts: Sequence[tuple[int, Prompt]], *, step: int, seed: int
    ) -> list[Group]:
        """Sample a group for each ``(slot, prompt)`` of ``prompts``, in the order given.

        The result is a pure function of the model and (seed, step, slot, sample): it does not depend on which prompts
        share a call. The model must be in eval mode.
        """
        group_size = self.num_generations
        # Prompts of similar length are decoded together to keep padding small.
        order = sorted(range(len(prompts)), key=lambda index: prompts[index][1].num_tokens)
        chunk = max(1, self.max_sequences // group_size)
        groups: dict[int, Group] = {}
        for start in range(0, len(order), chunk):
            indices = order[start : start + chunk]
            keys = [sequence_key(seed, step, prompts[i][0], g) for i in indices for g in range(group_size)]
            completions = self._decode(model, backbone, [prompts[index][1] for index in indices], keys)
            for position, index in enumerate(indices):
                slot, prompt = prompts[index]
                members = completions[position * group_size : (position + 1) * group_size]
                groups[index] = Group(slot, prompt, tuple(members))
        return [groups[index] for index in range(len(prompts))]

    def _decode(
        self, model: PreTrainedModel, backbone: Backbone, prompts: Sequence[Prompt], keys: Sequence[int]
    ) -> list[Completion]:
        keys_B = torch.tensor(keys, device=model.device)
        truncating = self._truncating()

        def choose(logits_N_V: Tensor, rows_N: Tensor, position: Tensor) -> Tensor:
            scores_N_V = logits_N_V.div_(self.temperature)
            for truncate in truncating:
                scores_N_V = truncate(None, scores_N_V)
            return draw_tokens(scores_N_V, keys_B[rows_N], position)

        return _complete(
            model,
            backbone,
            prompts,
            generations=self.num_generations,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            choose=choose,
        )

    def _truncating(self) -> list[LogitsProcessor]:
        processors: list[LogitsProcessor] = []
        if self.top_k > 0:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            processors.append(TopPLogitsWarper(self.top_p))
        return processors


def greedy(
    model: PreTrainedModel, backbone: Backbone, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: str
) -> list[Completion]:
    """Return the greedy completion of each prompt: the most likely token at each position.

    All prompts are decoded in one batch. The result does not depend on which prompts share a call, up to rounding.

    Args:
        model: the model, in eval mode.
        backbone: the model's backbone: tokenizer, end tokens and banned tokens.
        prompts: at least one prompt. They are padded to the longest, so similar lengths are decoded fastest.
        max_new_tokens: limit on the tokens of a completion.
        stop: text that ends a completion and is part of it.
    """
    return _complete(
        model,
        backbone,
        prompts,
        generations=1,
        max_new_tokens=max_new_tokens,
        stop=stop,
        choose=lambda logits_N_V, *_: logits_N_V.argmax(dim=-1),
    )


def _complete(
    model: PreTrainedModel,
    backbone: Backbone,
    prompts: Sequence[Prompt],
    *,
    generations: int,
    max_new_tokens: int,
    stop: str,
    choose: Choose,
) -> list[Completion]:
    """Decode ``generations`` completions of each prompt; ``choose`` gets −∞ as the logits of banned tokens."""
    finish = FinishRecorder(backbone, stop, max_new_tokens)
    banned = torch.tensor(backbone.banned_token_ids, device=model.device)
    tokens_B_T = decode(
        model,
        {name: tensor.to(model.device) for name, tensor in left_pad(prompts, backbone.pad_token_id).items()},
        {key: value.to(model.device) for key, value in concatenate_vision(prompts).items()},
        generations=generations,
        max_new_tokens=max_new_tokens,
        pad_token_id=backbone.pad_token_id,
        choose=lambda logits_N_V, *which: choose(logits_N_V.index_fill_(1, banned, -torch.inf), *which),
        finished=finish,
        static=model.device.type == "cuda",
    )
    owners = [prompt for prompt in prompts for _ in range(generations)]
    return [
        backbone.completion(ids[:count], reason, prompt)
        for ids, count, reason, prompt in zip(
            tokens_B_T.tolist(), finish.lengths(), finish.reasons(), owners, strict=True
        )
    ]


def left_pad(prompts: Sequence[Prompt], pad_token_id: int) -> dict[str, Tensor]:
    """Pad prompts on the left; return ``input_ids`` (P, S), ``attention_mask`` (P, S), ``position_ids`` (A, P, S)."""
    length = max(prompt.num_tokens for prompt in prompts)
    axes = prompts[0].position_ids_A_S.shape[0]
    input_ids_P_S = torch.full((len(prompts), length), pad_token_id)
    attention_mask_P_S = torch.zeros((len(prompts), length), dtype=torch.long)
    position_ids_A_P_S = torch.zeros((axes, len(prompts), length), dtype=torch.long)
    for index, prompt in enumerate(prompts):
        start = length - prompt.num_tokens
        input_ids_P_S[index, start:] = prompt.input_ids_S
        attention_mask_P_S[index, start:] = 1
        position_ids_A_P_S[:, index, start:] = prompt.position_ids_A_S
    return {"input_ids": input_ids_P_S, "attention_mask": attention_mask_P_S, "position_ids": position_ids_A_P_S}
