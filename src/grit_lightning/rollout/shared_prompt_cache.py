"""The cache of keys and values for decoding, which holds a prompt once for all its completions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grit_lightning.model.packed_layout import PackedLayout
from grit_lightning.model.products import product
from grit_lightning.model.varlen import Choice
from grit_lightning.rollout.static_memory import StaticMemory

PROMPT_BLOCK = 64
"""With static memory, prompts are padded to a multiple of this many places, so that few lengths are recorded."""

FIRST_PLACES = 128
"""With static memory, completions see this many places at first; the number doubles when they are full."""


class SharedPromptCache:
    """Keys and values of P prompts, and of G completions of each prompt.

    It is a :class:`~grit_lightning.model.attention.Layout` that computes the attention of one new token of each of the
    P · G completions. Scores are float32 in every dtype of the model, under autocast, too. The memory for all tokens is
    reserved at once, and new keys and values are written in place.

    Args:
        lengths: number of tokens of each prompt.
        generations: G, completions per prompt.
        max_new_tokens: limit on the tokens of a completion.
        memory: where keys and values are kept.
        device: device of the model.
        static: whether a step attends to a number of places that seldom changes, with unwritten ones masked. It is then
            the same sequence of kernels on the same memory as the step before, as CUDA graphs need.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        generations: int,
        max_new_tokens: int,
        *,
        memory: StaticMemory,
        device: torch.device,
        static: bool,
    ) -> None:
        self.memory, self.device, self.static = memory, device, static
        self.num_prompts, self.width, self.capacity = len(lengths), generations, max_new_tokens
        self.prompt_places = max(lengths)
        if static:
            self.prompt_places = -(-self.prompt_places // PROMPT_BLOCK) * PROMPT_BLOCK
        self.prompts: list[tuple[Tensor, Tensor]] = []  # keys and values per layer, each (P, K, S, D)
        self.own: list[tuple[Tensor, Tensor]] = []  # the same of completions, each (P, K, G, capacity, D)
        place_S, length_P_1 = torch.arange(self.prompt_places), torch.tensor(lengths)[:, None]
        start_P_1 = length_P_1.cumsum(0) - length_P_1
        visible_P_S = place_S < length_P_1
        self._sources = (start_P_1 + place_S).where(visible_P_S, 0).flatten().to(device)  # of concatenated prompts
        hidden = torch.zeros(visible_P_S.shape).masked_fill_(~visible_P_S, -torch.inf)
        self.masked = static or not bool(visible_P_S.all())
        self.prompt_bias = self._take("prompt bias", hidden[:, None, None].shape, torch.float32)  # (P, 1, 1, S)
        self.prompt_bias.copy_(hidden[:, None, None])
        self.length = 0
        self.index = self._take("index", (1,), torch.long)  # place of the next token
        self.index.zero_()
        self.bias = self._take("bias", (max_new_tokens,), torch.float32)  # 0 for written places, −∞ for the rest
        self.bias.fill_(-torch.inf)

    @property
    def seen(self) -> int:
        """Number of places of completions that a step attends to."""
        if not self.static:
            return self.length
        places = FIRST_PLACES
        while places < self.length:
            places *= 2
        return min(places, self.capacity)

    @property
    def changed(self) -> list[Tensor]:
        """Tensors that :meth:`begin_step` and :meth:`end_step` change."""
        return [self.index, self.bias]

    def fill(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store the keys and values of concatenated prompts, each (1, K, S, D), and reserve those of completions."""
        # On a CPU everything is float32, because torch has no bf16 matrix product with a float32 result there.
        dtype = value.dtype if self.static or self.device.type == "cuda" else torch.float32
        heads, size = key.shape[1], key.shape[3]
        pair = []
        for name, tensor in (("keys", key), ("values", value)):
            places = tensor[0].index_select(1, self._sources).view(heads, self.num_prompts, self.prompt_places, size)
            stored = self._take(f"prompt {name} {layer}", (self.num_prompts, heads, self.prompt_places, size), dtype)
            stored.copy_(places.transpose(0, 1))
            pair.append(stored)
        self.prompts.append((pair[0], pair[1]))
        shape = (self.num_prompts, heads, self.width, self.capacity, size)
        own = self._take(f"keys {layer}", shape, dtype), self._take(f"values {layer}", shape, dtype)
        if self.static:  # unwritten places have a weight of 0, which times NaN is NaN
            own[0].zero_()
            own[1].zero_()
        self.own.append(own)

    def make_room(self) -> None:
        """Reserve the place of the next token; call it before each step."""
        self.length += 1

    def begin_step(self) -> None:
        """Make the place of the new token visible; part of a step."""
        self.bias.index_fill_(0, self.index, 0.0)

    def end_step(self) -> None:
        """Move on to the next place; part of a step."""
        self.index += 1

    def keep(self, prompts_P: Tensor, places_P_G: Tensor) -> None:
        """Keep only some prompts, and equally many completions of each, at the beginning of the same memory.

        Args:
            prompts_P: indices of the prompts to keep, int64.
            places_P_G: for each kept prompt, the places of the completions to keep within its group, int64.
        """
        fewer = len(prompts_P) < self.num_prompts
        self.num_prompts, self.width = places_P_G.shape
        if fewer:
            self.prompt_bias = self._moved("prompt bias", self.prompt_bias[prompts_P])
        for layer in range(len(self.own)):
            if fewer:
                keys, values = self.prompts[layer]
                self.prompts[layer] = (
                    self._moved(f"prompt keys {layer}", keys[prompts_P]),
                    self._moved(f"prompt values {layer}", values[prompts_P]),
                )
            own = []
            for name, tensor in zip(("keys", "values"), self.own[layer], strict=True):
                written = tensor[..., : self.length, :].transpose(1, 2)[prompts_P[:, None], places_P_G].transpose(1, 2)
                target = self._take(
                    f"{name} {layer}", (*written.shape[:3], self.capacity, tensor.shape[4]), tensor.dtype
                )
                target[..., : self.length, :] = written
                own.append(target)
            self.own[layer] = (own[0], own[1])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store the new tokens' keys and values; return the output, shape (P·G, H, 1, D), ordered by prompt."""
        prompt_keys, prompt_values = (tensor.flatten(0, 1) for tensor in self.prompts[layer])  # (P·K, S, D)
        num_prompts, heads, group = self.num_prompts, key.shape[1], self.width
        keys, values = self._write(layer, key, value)
        # Query heads that share keys, and completions that share a prompt, become rows of one matrix product.
        query_P_K_G_R_D = query.view(num_prompts, group, heads, -1, query.shape[-1]).transpose(1, 2)
        rows = query_P_K_G_R_D.to(prompt_keys.dtype).flatten(0, 1)  # (P·K, G, R, D)
        scores = product(rows.flatten(1, 2), prompt_keys.transpose(1, 2)).view(
            num_prompts, heads, -1, prompt_keys.shape[1]
        )
        if self.masked:
            scores += self.prompt_bias
        own_scores = product(rows.flatten(0, 1), keys.transpose(1, 2))  # (P·K·G, R, T)
        if self.static:
            own_scores += self.bias[: keys.shape[1]]
        size = scores.shape[-1]
        both = torch.cat([scores.flatten(0, 1), own_scores.view(*scores.shape[:3], -1).flatten(0, 1)], dim=-1)
        weights = (both * scale).softmax(dim=-1).to(prompt_values.dtype)  # (P·K, G·R, S + T)
        output = product(weights[..., :size], prompt_values)
        own = product(weights[..., size:].unflatten(1, (group, -1)).flatten(0, 1), values)
        output = (output + own.view_as(output)).view(num_prompts, heads, group, -1, query.shape[-1])
        return output.transpose(1, 2).reshape(query.shape).to(query.dtype)

    def _write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new token's keys and values; return those of completion tokens so far, each (P·K·G, T, D)."""
        pair = self.own[layer]
        for memory, new in zip(pair, (key, value), strict=True):
            places = new.view(memory.shape[0], self.width, memory.shape[1], 1, -1).transpose(1, 2)
            memory.index_copy_(3, self.index, places.to(memory.dtype))
        keys, values = (memory.flatten(0, 2)[:, : self.seen] for memory in pair)
        return keys, values

    def _take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self.memory.take(name, shape, dtype, self.device)

    def _moved(self, name: str, values: Tensor) -> Tensor:
        target = self._take(name, values.shape, values.dtype)
        target.copy_(values)
        return target


class PromptPass:
    """Layout of concatenated prompts, each of which sees itself; it fills a cache with their keys and values.

    Args:
        lengths: number of tokens of each prompt.
        cache: the cache to fill.
        choice: which kernel computes bf16 on CUDA.
        device: device of the model.
    """

    def __init__(self, lengths: Sequence[int], cache: SharedPromptCache, choice: Choice, device: torch.device) -> None:
        self._packed = PackedLayout([(length,) for length in lengths], choice, device)
        self._cache = cache

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return the output, shape (1, H, tokens, D), and store keys and values."""
        self._cache.fill(layer, key, value)
        return self._packed.attend(layer, query, key, value, scale)
