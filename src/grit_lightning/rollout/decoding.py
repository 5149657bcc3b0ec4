"""Token-by-token decoding of completions that share prompts, with little memory traffic beyond the model's weights.

``generate`` would hold a prompt's cache once per completion, copy the whole cache for each token, and continue
completions that have ended. Here, a prompt's keys and values are held once and read once per token for all its
completions, keys and values of new tokens are written in place, and completions that have ended leave the batch.

On CUDA a step, from the last token of each completion to its next one, is one replayed graph. The host looks at which
completions have ended only now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from grit_lightning.model.attention import arguments, choice_of
from grit_lightning.model.lm_head import logits
from grit_lightning.model.packing import concatenate_vision, rotary_positions
from grit_lightning.rollout.shared_prompt_cache import PromptPass, SharedPromptCache
from grit_lightning.rollout.static_memory import StaticMemory
from grit_lightning.rollout.stopping import Ends
from grit_lightning.types import Prompt

SHRINK = 0.75
"""The batch shrinks only if it keeps at most this share of its rows, because shrinking copies the cache."""

LOOK = 8
"""With static memory, the host looks every this many tokens at which completions have ended."""

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A hashable function from ``(logits_N_V, keys_N, position)`` to the next token of each row, int64, shape (N,).

The logits are float32 and may be overwritten; ``position`` is a tensor of shape (1,), the number of tokens so far.
"""

_MEMORIES: WeakKeyDictionary[PreTrainedModel, StaticMemory] = WeakKeyDictionary()


class Decoded(NamedTuple):
    """Decoded completions.

    Attributes:
        tokens_B_T: token ids, int64, with anything after the end of a completion.
        lengths_B: number of tokens of each completion, the one that ended it included, int64.
        states_B: final states of ``ends``, int64.
    """

    tokens_B_T: Tensor
    lengths_B: Tensor
    states_B: Tensor


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    keys_B: Tensor,
    *,
    generations: int,
    max_new_tokens: int,
    choose: Choose,
    ends: Ends,
    static: bool,
    tick: Callable[[int], None] = lambda position: None,
) -> Decoded:
    """Decode ``generations`` completions of each of P prompts.

    Args:
        model: a model in eval mode that was loaded with :mod:`grit_lightning.model.attention`.
        prompts: the prompts.
        keys_B: a number for each of the B = P · G completions, by which ``choose`` tells them apart, int64.
        generations: G, completions per prompt.
        max_new_tokens: limit on the tokens of a completion.
        choose: function that chooses the next tokens.
        ends: rule for the ends of completions.
        static: whether to work in memory that stays, as CUDA graphs need; on CUDA, steps are then replayed as graphs.
        tick: function that is called with the number of tokens so far before each further one.
    """
    device = keys_B.device
    memory = _static_memory(model) if static else StaticMemory()
    lengths = [prompt.num_tokens for prompt in prompts]
    cache = SharedPromptCache(lengths, generations, max_new_tokens, memory=memory, device=device, static=static)
    logits_N_V = _prefill(model, prompts, cache).repeat_interleave(generations, dim=0)
    batch = _Batch(model, cache, prompts, keys_B, max_new_tokens, choose, ends)
    batch.draw(logits_N_V)
    for count in range(1, max_new_tokens):
        tick(count)
        if count % (LOOK if static else 1) == 0:
            ended = batch.ended()
            if all(ended):
                return batch.result(count)
            batch.shrink(ended)
        cache.make_room()
        if replays(static, device):
            key = (cache.num_prompts, cache.width, cache.prompt_places, cache.seen, cache.capacity, choose, ends)
            memory.run(key, batch.step, batch.changed)
        else:
            batch.step()
    return batch.result(max_new_tokens)


def _static_memory(model: PreTrainedModel) -> StaticMemory:
    """Return the memory of a model's rollouts, without graphs if the weights have moved since the last one."""
    memory = _MEMORIES.setdefault(model, StaticMemory())
    memory.check_weights(model)
    return memory


def replays(static: bool, device: torch.device) -> bool:
    """Tell whether steps are recorded and replayed as CUDA graphs."""
    return static and device.type == "cuda"


def _prefill(model: PreTrainedModel, prompts: Sequence[Prompt], cache: SharedPromptCache) -> Tensor:
    """Run the concatenated prompts and fill the cache; return the logits of each prompt's last token, shape (P, V)."""
    device = cache.device
    lengths = [prompt.num_tokens for prompt in prompts]
    layout = PromptPass(lengths, cache, choice_of(model), device)
    hidden_1_S_D = model.base_model(
        input_ids=torch.cat([prompt.input_ids_S for prompt in prompts])[None].to(device),
        position_ids=rotary_positions(torch.cat([p.position_ids_A_S for p in prompts], dim=1)[:, None].to(device)),
        use_cache=False,
        **arguments(layout),
        **{name: value.to(device) for name, value in concatenate_vision(prompts).items()},
    ).last_hidden_state
    last_P = (torch.tensor(lengths).cumsum(0) - 1).to(device)
    return logits(model.lm_head, hidden_1_S_D[0].index_select(0, last_P))


class _Batch:
    """The completions that are decoded: equally many of each remaining prompt, some of which may have ended.

    What a step reads and writes lies in the memory of the cache. A column of ``rows`` belongs to a completion.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: SharedPromptCache,
        prompts: Sequence[Prompt],
        keys_B: Tensor,
        max_new_tokens: int,
        choose: Choose,
        ends: Ends,
    ) -> None:
        self.model, self.cache, self.choose, self.ends = model, cache, choose, ends
        count, device = len(keys_B), cache.device
        self.axes = len(prompts[0].position_ids_A_S)
        self.groups = [list(range(start, start + cache.width)) for start in range(0, count, cache.width)]
        take = cache.memory.take
        self.tokens_B_T = take("tokens", (count, max_new_tokens), torch.long, device)
        self.lengths_B = take("lengths", (count,), torch.long, device).zero_()
        self.states_B = take("states", (count,), torch.long, device)
        self.states_B.copy_(ends.start(count, device))
        self.position = take("position", (1,), torch.long, device).zero_()
        self.row_N, self.key_N, self.token_N, self.place_N = (
            take(name, (count,), torch.long, device) for name in ("row", "key", "token", "place")
        )
        self.row_N.copy_(torch.arange(count, device=device))
        self.key_N.copy_(keys_B)
        ends_P = [int(prompt.position_ids_A_S.amax()) + 1 for prompt in prompts]
        self.place_N.copy_(torch.tensor(ends_P, device=device).repeat_interleave(cache.width))

    @property
    def changed(self) -> list[Tensor]:
        """Tensors that a step changes, without tokens, keys and values: those are written again."""
        own = [self.lengths_B, self.states_B, self.position, self.token_N, self.place_N]
        return [*own, *self.cache.changed]

    def step(self) -> None:
        """Decode one token of each completion. Everything happens on the device, in place."""
        self.cache.begin_step()
        hidden_N_1_D = self.model.base_model(
            input_ids=self.token_N[:, None],
            position_ids=rotary_positions(self.place_N[None, :, None].expand(self.axes, -1, -1)),
            use_cache=False,
            **arguments(self.cache),
        ).last_hidden_state
        self.cache.end_step()
        self.place_N += 1
        self.draw(logits(self.model.lm_head, hidden_N_1_D[:, -1]))

    def draw(self, logits_N_V: Tensor) -> None:
        """Choose the next token of each completion, and note which of them have ended."""
        token_N = self.choose(logits_N_V, self.key_N, self.position)
        self.tokens_B_T[self.row_N, self.position.expand_as(self.row_N)] = token_N
        state_N = self.states_B[self.row_N]
        self.lengths_B[self.row_N] += ~self.ends.over(state_N)
        self.states_B[self.row_N] = self.ends.next(state_N, token_N)
        self.token_N.copy_(token_N)
        self.position += 1

    def ended(self) -> list[bool]:
        """Return which of all completions have ended; the device is waited for."""
        ended: list[bool] = self.ends.over(self.states_B).tolist()
        return ended

    def shrink(self, ended: Sequence[bool]) -> None:
        """Remove completions that have ended if few enough rows remain (:data:`SHRINK`)."""
        going = [[place for place, row in enumerate(group) if not ended[row]] for group in self.groups]
        kept = [index for index, places in enumerate(going) if places]
        width = max(map(len, going))
        if self.cache.static:  # few sizes, each of which is recorded once
            kept = _first(min(_bucket(len(kept)), len(going)), kept, len(going))
            width = min(_bucket(width), self.cache.width)
        if len(kept) * width > SHRINK * len(self.row_N):
            return
        places = [_first(width, going[index], len(self.groups[index])) for index in kept]
        columns = [
            index * self.cache.width + place for index, chosen in zip(kept, places, strict=True) for place in chosen
        ]
        self.groups = [
            [self.groups[index][place] for place in chosen] for index, chosen in zip(kept, places, strict=True)
        ]
        device = self.cache.device
        self.cache.keep(torch.tensor(kept, device=device), torch.tensor(places, device=device))
        columns_N = torch.tensor(columns, device=device)
        self.row_N, self.key_N, self.token_N, self.place_N = (
            values[: len(columns)].copy_(values[columns_N])
            for values in (self.row_N, self.key_N, self.token_N, self.place_N)
        )

    def result(self, count: int) -> Decoded:
        """Return copies of what ``count`` tokens gave."""
        return Decoded(self.tokens_B_T[:, :count].clone(), self.lengths_B.clone(), self.states_B.clone())


def _first(count: int, going: Sequence[int], size: int) -> list[int]:
    """Return ``count`` of ``size`` places in order: those that go on, and others to fill up."""
    filled = [*going, *(place for place in range(size) if place not in going)][:count]
    return sorted(filled)


def _bucket(count: int) -> int:
    """Return the smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that is not below ``count``."""
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power
