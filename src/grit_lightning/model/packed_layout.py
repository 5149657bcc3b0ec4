"""Attention of packed rows, in which a completion sees the prompt and itself, without masks over a row.

A row ``[prompt | o_1 | … | o_G]`` is G + 1 sequences: the queries of the prompt over its own keys, and those of each
completion over the keys of the prompt and its own. On CUDA, one call computes all sequences of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from grit_lightning.model.varlen import Choice, Sequences, kernel


class PackedLayout:
    """Layout (see :class:`~grit_lightning.model.attention.Layout`) of concatenated packed rows.

    Args:
        rows: for each row, the lengths of its prompt and of each completion; a completion's length may be 0.
        choice: which kernel computes bf16 on CUDA.
        device: device of the model.
    """

    def __init__(self, rows: Sequence[Sequence[int]], choice: Choice, device: torch.device) -> None:
        self.rows = rows
        self.choice = choice
        self.device = device

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return the output, shape (1, H, S, D)."""
        # Rotary positions may widen queries and keys; the kernels need one dtype.
        query, key = query.to(value.dtype), key.to(value.dtype)
        call = kernel(self.choice, query.device, value.dtype)
        if call is None:
            return self._by_sequence(query, key, value, scale)
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (S, H, D), (S, K, D)
        keys = _Repeat.apply(key, self._key_places)
        values = _Repeat.apply(value, self._key_places)
        return call(query, keys, values, self._sequences, scale=scale, causal=True).transpose(0, 1)[None]

    def _by_sequence(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Compute each sequence with a call of its own."""
        lengths = [length for row in self.rows for length in row]
        parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
        outputs: list[Tensor] = []
        for row in self.rows:
            own, prompt_key, prompt_value = next(parts)
            outputs.append(_attention(own, prompt_key, prompt_value, scale))
            for _ in row[1:]:
                own, own_key, own_value = next(parts)
                if own.shape[2]:  # a completion of one token has no input, because its last token is never an input
                    keys, values = torch.cat([prompt_key, own_key], 2), torch.cat([prompt_value, own_value], 2)
                    outputs.append(_attention(own, keys, values, scale))
        return torch.cat(outputs, dim=2)

    @cached_property
    def _sequences(self) -> Sequences:
        parts = [(index, length, row[0]) for row in self.rows for index, length in enumerate(row) if length]
        queries = [length for _, length, _ in parts]
        keys = [length + prompt * (index > 0) for index, length, prompt in parts]
        return Sequences.of(queries, keys, self.device)

    @cached_property
    def _key_places(self) -> Tensor:
        """Positions of the keys of each sequence, one sequence after the other, int64."""
        places: list[Tensor] = []
        start = 0
        for prompt, *completions in self.rows:
            prompt_places = torch.arange(start, start + prompt)
            places.append(prompt_places)
            start += prompt
            for length in completions:
                if length:
                    places += [prompt_places, torch.arange(start, start + length)]
                    start += length
        return torch.cat(places).to(self.device)


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Compute causal attention with lower-right alignment: the last query sees all keys."""
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=causal_lower_right(query.shape[2], key.shape[2]),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


class _Repeat(torch.autograd.Function):
    """Select positions of a tensor along axis 0, some of them several times; gradients are summed in float32.

    A prompt's keys have a gradient from each completion. ``index_select`` would sum them in bf16.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.length = len(tensor)
        return tensor.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        wide = torch.promote_types(gradient.dtype, torch.float32)
        total = gradient.new_zeros((ctx.length, *gradient.shape[1:]), dtype=wide)
        return total.index_add_(0, places, gradient.to(wide)).to(gradient.dtype), None
