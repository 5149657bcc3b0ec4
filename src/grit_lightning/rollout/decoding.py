"""Decoding: completions of shared prompts, token by token, written so that little but the model's weights is read.

``generate`` would hold the cache of a prompt once per completion, copy all of it for each token, and go on with
completions that have ended. Here a prompt's keys and values are held once and read once per token for all its
completions, those of new tokens are written in place, and completions that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grit_lightning.model.attention import arguments, takes_layout
from grit_lightning.model.packing import rotary_positions
from grit_lightning.rollout.cuda_graphs import Replayed

GROWTH = 128
"""Tokens by which the cache of completions grows."""

SHRINK = 0.75
"""The batch is made smaller when it would be at most this share of what it is: doing so copies the cache."""

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(logits_N_V, rows_N, position)`` to the next token of each row; logits are float32 and may be overwritten."""

Finished = Callable[[Tensor, None], Tensor]
"""Which rows of tokens have ended, bool, (B,); called after each token."""


class SharedPromptCache:
    """Keys and values: those of P prompts, and of G completions of each.

    It is a :class:`~grit_lightning.model.attention.Layout` for one new token of each of the P · G completions. The
    scores are float32, whatever the model computes in, under autocast, too.

    Args:
        prompts: the prompts' cache.
        visible_P_S: bool; False for padding.
        generations: G.
        static: read all of the memory in every step, so that a step is the same sequence of kernels, for CUDA graphs.
    """

    def __init__(self, prompts: DynamicCache, visible_P_S: Tensor, generations: int, *, static: bool) -> None:
        self.static = static
        self.width = generations
        device = visible_P_S.device
        # On a CPU everything is float32: there is no matrix product of bf16 with a wider result.
        dtype = prompts.layers[0].values.dtype if device.type == "cuda" else torch.float32
        self.prompts = [(layer.keys.to(dtype), layer.values.to(dtype)) for layer in prompts.layers]
        hidden = torch.zeros_like(visible_P_S, dtype=torch.float32).masked_fill_(~visible_P_S, -torch.inf)
        self.prompt_bias = None if visible_P_S.all() else hidden[:, None, None]  # (P, 1, 1, S)
        self.capacity = 0
        self.length = 0
        self.index = torch.zeros(1, dtype=torch.long, device=device)  # where the next token goes
        self.bias = torch.empty(0, device=device)  # (capacity,), −∞ for what is not written
        self.own: list[tuple[Tensor, Tensor]] = []  # of each layer (P, K, G, capacity, D)

    def make_room(self) -> bool:
        """Before each token. Whether memory moved."""
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
        """Keep some prompts, and of each as many completions, by their places within the group."""
        self.width = places_P_G.shape[1]
        if len(prompts_P) < len(self.prompts[0][0]):
            self.prompts = [(keys[prompts_P], values[prompts_P]) for keys, values in self.prompts]
            self.prompt_bias = None if self.prompt_bias is None else self.prompt_bias[prompts_P]
        for layer, pair in enumerate(self.own):
            keys, values = (tensor.transpose(1, 2)[prompts_P[:, None], places_P_G].transpose(1, 2) for tensor in pair)
            self.own[layer] = (keys.contiguous(), values.contiguous())

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """The output for one new token of each row, shape (P·G, H, 1, D), in the order of prompts."""
        prompt_keys, prompt_values = (tensor.flatten(0, 1) for tensor in self.prompts[layer])  # (P·K, S, D)
        num_prompts, heads, group = len(self.prompts[layer][0]), key.shape[1], self.width
        keys, values = self._write(layer, key, value)
        # Heads that share keys, and completions that share a prompt, are rows of one matrix product.
        query_P_K_G_R_D = query.view(num_prompts, group, heads, -1, query.shape[-1]).transpose(1, 2)
        rows = query_P_K_G_R_D.to(prompt_keys.dtype).flatten(0, 1)  # (P·K, G, R, D)
        scores = _product(rows.flatten(1, 2), prompt_keys.transpose(1, 2)).view(
            num_prompts, heads, -1, prompt_keys.shape[1]
        )
        if self.prompt_bias is not None:
            scores = scores + self.prompt_bias
        own_scores = _product(rows.flatten(0, 1), keys.transpose(1, 2))  # (P·K·G, R, T)
        if self.static:
            own_scores = own_scores + self.bias
        size = scores.shape[-1]
        both = torch.cat([scores.flatten(0, 1), own_scores.view(*scores.shape[:3], -1).flatten(0, 1)], dim=-1)
        weights = (both * scale).softmax(dim=-1).to(prompt_values.dtype)  # (P·K, G·R, S + T)
        output = _product(weights[..., :size], prompt_values)
        own = _product(weights[..., size:].unflatten(1, (group, -1)).flatten(0, 1), values)
        output = (output + own.view_as(output)).view(num_prompts, heads, group, -1, query.shape[-1])
        return output.transpose(1, 2).reshape(query.shape).to(query.dtype)

    def _write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What there is of the completions with the new token's, each (P·K·G, T, D)."""
        pair = self.own[layer]
        for memory, new in zip(pair, (key, value), strict=True):
            places = new.view(memory.shape[0], self.width, memory.shape[1], 1, -1).transpose(1, 2)
            memory.index_copy_(3, self.index, places.to(memory.dtype))
        seen = self.capacity if self.static else self.length
        keys, values = (memory.flatten(0, 2)[:, :seen] for memory in pair)
        return keys, values


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Batched matrix product, float32."""
    with torch.autocast(first.device.type, enabled=False):
        if first.dtype == torch.float32:
            return torch.bmm(first, second)
        return torch.bmm(first, second, out_dtype=torch.float32)


def decode(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    vision: dict[str, Tensor],
    *,
    generations: int,
    max_new_tokens: int,
    pad_token_id: int,
    choose: Choose,
    finished: Finished,
    static: bool,
) -> Tensor:
    """Token ids of ``generations`` completions of each prompt, int64, shape (P·G, T), padded after their end.

    Args:
        model: in eval mode, with :mod:`grit_lightning.model.attention`.
        batch: of :func:`~grit_lightning.rollout.sampler.left_pad`.
        vision: the vision tower's arguments.
        generations: G.
        max_new_tokens: limit on a completion's tokens.
        pad_token_id: what follows the end of a completion.
        choose: the next tokens.
        finished: which completions have ended.
        static: see :class:`SharedPromptCache`; on CUDA steps are then replayed as graphs.
    """
    if not takes_layout(model):
        raise ValueError("the model was not loaded with grit_lightning.model.attention")
    cache, logits_N_V = _prefill(model, batch, vision, generations, static=static)
    positions_B = (batch["position_ids"].amax(dim=(0, 2)) + 1).repeat_interleave(generations)
    axes = len(batch["position_ids"])
    tokens_B_T = torch.full((len(positions_B), max_new_tokens), pad_token_id, device=positions_B.device)
    running = _Rows(len(batch["input_ids"]), generations, tokens_B_T.device)
    step = Replayed(lambda ids, positions: _step(model, cache, ids, positions)) if static else None
    for position in range(max_new_tokens):
        rows_N = running.rows_N
        next_N = choose(logits_N_V, rows_N, torch.tensor(position, device=rows_N.device))
        tokens_B_T[rows_N, position] = torch.where(running.ended_N, pad_token_id, next_N)
        ended_B = finished(tokens_B_T[:, : position + 1], None)
        if position + 1 == max_new_tokens or running.all_ended(ended_B):
            return tokens_B_T[:, : position + 1]
        shrunk = running.shrink(cache)
        ids_N_1 = tokens_B_T[running.rows_N, position, None]
        positions_A_N_1 = (positions_B[running.rows_N] + position)[None, :, None].expand(axes, -1, -1)
        if cache.make_room() or shrunk:
            step = step and step.again()
        logits_N_V = step(ids_N_1, positions_A_N_1) if step else _step(model, cache, ids_N_1, positions_A_N_1)
    return tokens_B_T


def _prefill(
    model: PreTrainedModel, batch: dict[str, Tensor], vision: dict[str, Tensor], generations: int, *, static: bool
) -> tuple[SharedPromptCache, Tensor]:
    """The prompts' cache, and the logits of the first token of each completion, (P·G, V)."""
    prompts = DynamicCache(config=model.config)
    hidden_P_S_D = model.base_model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=rotary_positions(batch["position_ids"]),
        past_key_values=prompts,
        use_cache=True,
        **vision,
    ).last_hidden_state
    logits_P_V = model.lm_head(hidden_P_S_D[:, -1]).float()
    cache = SharedPromptCache(prompts, batch["attention_mask"].bool(), generations, static=static)
    return cache, logits_P_V.repeat_interleave(generations, dim=0)


def _step(model: PreTrainedModel, cache: SharedPromptCache, ids_N_1: Tensor, positions_A_N_1: Tensor) -> Tensor:
    hidden_N_1_D = model.base_model(
        input_ids=ids_N_1, position_ids=rotary_positions(positions_A_N_1), use_cache=False, **arguments(cache)
    ).last_hidden_state
    return model.lm_head(hidden_N_1_D[:, -1]).float()


class _Rows:
    """Which completions are in the batch: as many of each prompt, some of which may have ended."""

    def __init__(self, num_prompts: int, generations: int, device: torch.device) -> None:
        self.groups = [list(range(i * generations, (i + 1) * generations)) for i in range(num_prompts)]
        self.ended = [False] * (num_prompts * generations)
        self.device = device
        self._lay_out()

    def _lay_out(self) -> None:
        rows = [row for group in self.groups for row in group]
        self.rows_N = torch.tensor(rows, device=self.device)
        self.ended_N = torch.tensor([self.ended[row] for row in rows], device=self.device)

    def all_ended(self, ended_B: Tensor) -> bool:
        """Take note of what has ended; whether that is everything."""
        self.ended_N = ended_B[self.rows_N]
        self.ended = ended_B.tolist()
        return all(self.ended)

    def shrink(self, cache: SharedPromptCache) -> bool:
        """Leave out what has ended, if that is worth it."""
        going = [[place for place, row in enumerate(group) if not self.ended[row]] for group in self.groups]
        kept = [index for index, places in enumerate(going) if places]
        width = max(map(len, going))
        if len(kept) * width > SHRINK * len(self.rows_N):
            return False
        places = [_first(width, going[index], len(self.groups[index])) for index in kept]
        cache.keep(torch.tensor(kept, device=self.device), torch.tensor(places, device=self.device))
        self.groups = [
            [self.groups[index][place] for place in chosen] for index, chosen in zip(kept, places, strict=True)
        ]
        self._lay_out()
        return True


def _first(width: int, going: Sequence[int], size: int) -> list[int]:
    """``width`` places of a group: those that go on, then others to fill up."""
    return [*going, *(place for place in range(size) if place not in going)][:width]
