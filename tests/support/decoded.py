"""Decoding with a chosen length for each completion."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.model.packing import concatenate_vision
from grit_lightning.rollout.decoding import decode
from grit_lightning.rollout.noise import draw_tokens
from grit_lightning.rollout.sampler import left_pad
from grit_lightning.types import Prompt

G = 4
LIMIT = 20


@torch.no_grad()
def decoded(
    model, backbone: PretrainedBackbone, prompts: Sequence[Prompt], lengths: Sequence[int], *, static: bool = False,
    generations: int = G,
) -> list[list[int]]:  # fmt: skip
    """Return sampled tokens; completion ``i`` ends after ``lengths[i]`` tokens, whatever they are."""
    keys = torch.arange(len(prompts) * generations) * 7919
    ends = torch.tensor(lengths)
    banned = torch.tensor(backbone.banned_token_ids)
    tokens = decode(
        model,
        left_pad(prompts, backbone.pad_token_id),
        concatenate_vision(prompts),
        generations=generations,
        max_new_tokens=LIMIT,
        pad_token_id=backbone.pad_token_id,
        choose=lambda logits, rows, place: draw_tokens(logits.index_fill(1, banned, -torch.inf), keys[rows], place),
        finished=lambda ids, _: ids.shape[1] >= ends,
        static=static,
    )
    for row, length in zip(tokens, lengths, strict=True):
        assert (row[length:] == backbone.pad_token_id).all()
    return [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
