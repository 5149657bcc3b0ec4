"""The cache of keys and values for decoding, which holds a prompt once for all its completions."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from grit_lightning.model.products import product

GROWTH = 128
"""Number of tokens by which the memory of completions grows when it is full."""


class SharedPromptCache:
    """Keys and values of P prompts, and of G completions of each prompt.

    It is a :class:`~grit_lightning.model.attention.Layout` that computes the attention of one new token of each of the
    P · G completions. Scores are float32 in every dtype of the model, under autocast, too.

    Args:
        prompts: keys and values of the prompts.
        visible_P_S: whether a position of a prompt is visible, bool; False for padding.
        generations: G, completions per prompt.
        static: whether to attend to the whole memory, with unwritten places masked, in every step. A step is then
            always the same sequence of kernels, as CUDA graphs need.
    """

    def __init__(self, prompts: DynamicCache, visible_P_S: Tensor, generations: int, *, static: bool) -> None:
        self.static = static
        self.width = generations
        device = visible_P_S.device
        # On a CPU everything is float32, because torch has no bf16 matrix product with a float32 result there.
        dtype = prompts.layers[0].values.dtype if device.type == "cuda" else torch.float32
        self.prompts = [(layer.keys.to(dtype), layer.values.to(dtype)) for layer in prompts.layers]
        hidden = torch.zeros_like(visible_P_S, dtype=torch.float32).masked_fill_(~visible_P_S, -torch.inf)
        self.prompt_bias = None if visible_P_S.all() else hidden[:, None, None]  # (P, 1, 1, S)
        self.capacity = 0
        self.length = 0
        self.index = torch.zeros(1, dtype=torch.long, device=device)  # place of the next token
        self.bias = torch.empty(0, device=device)  # (capacity,): 0 for written places, −∞ for the rest
        self.own: list[tuple[Tensor, Tensor]] = []  # keys and values per layer, each (P, K, G, capacity, D)

    def make_room(self) -> bool:
        """Reserve the place of the next token; call it before each token. Tell whether the memory was reallocated."""
        moved = self.length == self.capacity
        if moved:
            self._grow()
        self.index.fill_(self.length)
        self.bias[self.length] = 0.0
        self.length += 1
        return moved

    def _grow(self) -> None:
        grow = self.prompts[0][0].new_zeros
        self.capacity += GROWTH
        self.bias = torch.cat([self.bias, self.bias.new_full((GROWTH,), -torch.inf)])
        for layer, (keys, _) in enumerate(self.prompts):
            num_prompts, heads, _, size = keys.shape
            more = (num_prompts, heads, self.width, GROWTH, size)
            if layer == len(self.own):
                self.own.append((grow(more), grow(more)))
            else:
                old_keys, old_values = self.own[layer]
                self.own[layer] = (torch.cat([old_keys, grow(more)], dim=3), torch.cat([old_values, grow(more)], dim=3))

    def keep(self, prompts_P: Tensor, places_P_G: Tensor) -> None:
        """Keep only some prompts, and equally many completions of each.

        Args:
            prompts_P: indices of the prompts to keep, int64.
            places_P_G: for each kept prompt, the places of the completions to keep within its group, int64.
        """
        self.width = places_P_G.shape[1]
        if len(prompts_P) < len(self.prompts[0][0]):
            self.prompts = [(keys[prompts_P], values[prompts_P]) for keys, values in self.prompts]
            self.prompt_bias = None if self.prompt_bias is None else self.prompt_bias[prompts_P]
        for layer, pair in enumerate(self.own):
            keys, values = (tensor.transpose(1, 2)[prompts_P[:, None], places_P_G].transpose(1, 2) for tensor in pair)
            self.own[layer] = (keys.contiguous(), values.contiguous())

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store the new tokens' keys and values; return the output, shape (P·G, H, 1, D), ordered by prompt."""
        prompt_keys, prompt_values = (tensor.flatten(0, 1) for tensor in self.prompts[layer])  # (P·K, S, D)
        num_prompts, heads, group = len(self.prompts[layer][0]), key.shape[1], self.width
        keys, values = self._write(layer, key, value)
        # Query heads that share keys, and completions that share a prompt, become rows of one matrix product.
        query_P_K_G_R_D = query.view(num_prompts, group, heads, -1, query.shape[-1]).transpose(1, 2)
        rows = query_P_K_G_R_D.to(prompt_keys.dtype).flatten(0, 1)  # (P·K, G, R, D)
        scores = product(rows.flatten(1, 2), prompt_keys.transpose(1, 2)).view(
            num_prompts, heads, -1, prompt_keys.shape[1]
        )
        if self.prompt_bias is not None:
            scores = scores + self.prompt_bias
        own_scores = product(rows.flatten(0, 1), keys.transpose(1, 2))  # (P·K·G, R, T)
        if self.static:
            own_scores = own_scores + self.bias
        size = scores.shape[-1]
        both = torch.cat([scores.flatten(0, 1), own_scores.view(*scores.shape[:3], -1).flatten(0, 1)], dim=-1)
        weights = (both * scale).softmax(dim=-1).to(prompt_values.dtype)  # (P·K, G·R, S + T)
        output = product(weights[..., :size], prompt_values)
        own = product(weights[..., size:].unflatten(1, (group, -1)).flatten(0, 1), values)
        output = (output + own.view_as(output)).view(num_prompts, heads, group, -1, query.shape[-1])
        return output.transpose(1, 2).reshape(query.shape).to(query.dtype)

    def _write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new token's keys and values; return those of all completion tokens so far, each (P·K·G, T, D)."""
        pair = self.own[layer]
        for memory, new in zip(pair, (key, value), strict=True):
            places = new.view(memory.shape[0], self.width, memory.shape[1], 1, -1).transpose(1, 2)
            memory.index_copy_(3, self.index, places.to(memory.dtype))
        seen = self.capacity if self.static else self.length
        keys, values = (memory.flatten(0, 2)[:, :seen] for memory in pair)
        return keys, values
