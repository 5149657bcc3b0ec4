"""Decoding with a chosen length for each completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.rollout.choice import Draw
from grit_lightning.rollout.decoding import decode
from grit_lightning.types import Prompt

G = 4
LIMIT = 20


@dataclass(frozen=True)
class After:
    """Ends completions after given numbers of tokens, whatever they are; a state is the number of tokens left."""

    lengths: tuple[int, ...]

    def start(self, count: int, device: torch.device) -> Tensor:
        assert count == len(self.lengths)
        return torch.tensor(self.lengths, device=device)

    def next(self, state_N: Tensor, token_N: Tensor) -> Tensor:
        return (state_N - 1).clamp(min=0)

    def over(self, state_N: Tensor) -> Tensor:
        return state_N == 0


@torch.no_grad()
def decoded(
    model, backbone: PretrainedBackbone, prompts: Sequence[Prompt], lengths: Sequence[int], *, static: bool = False,
    generations: int = G,
) -> list[list[int]]:  # fmt: skip
    """Return sampled tokens; completion ``i`` ends after ``lengths[i]`` tokens, whatever they are."""
    found = decode(
        model,
        prompts,
        torch.arange(len(prompts) * generations) * 7919,
        generations=generations,
        max_new_tokens=LIMIT,
        choose=Draw(1.0, 0, 1.0, backbone.banned_token_ids),
        ends=After(tuple(lengths)),
        static=static,
    )
    assert found.lengths_B.tolist() == list(lengths)
    return [row[:length] for row, length in zip(found.tokens_B_T.tolist(), lengths, strict=True)]
