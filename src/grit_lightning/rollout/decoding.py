"""Token-by-token decoding of completions that share prompts, with little memory traffic beyond the model's weights.

``generate`` would hold a prompt's cache once per completion, copy the whole cache for each token, and continue
completions that have ended. Here, a prompt's keys and values are held once and read once per token for all its
completions, keys and values of new tokens are written in place, and completions that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grit_lightning.model.attention import arguments, choice_of
from grit_lightning.model.lm_head import logits
from grit_lightning.model.packing import rotary_positions
from grit_lightning.rollout.cuda_graphs import Replayed
from grit_lightning.rollout.shared_prompt_cache import SharedPromptCache

SHRINK = 0.75
"""The batch shrinks only if it keeps at most this share of its rows, because shrinking copies the cache."""

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function from ``(logits_N_V, rows_N, position)`` to the next token of each row, int64, shape (N,).

``rows_N`` are indices into the P·G completions. The logits are float32 and may be overwritten.
"""

Finished = Callable[[Tensor, None], Tensor]
"""A function from ``(tokens_B_T, None)`` to which rows have ended, bool, shape (B,); called after each token."""


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
    """Decode ``generations`` completions of each prompt.

    Args:
        model: a model in eval mode that was loaded with :mod:`grit_lightning.model.attention`.
        batch: the prompts, from :func:`~grit_lightning.rollout.sampler.left_pad`.
        vision: arguments of the vision tower, concatenated over prompts.
        generations: G, completions per prompt.
        max_new_tokens: limit on the tokens of a completion.
        pad_token_id: token that fills the rest of a row after its completion has ended.
        choose: function that chooses the next tokens.
        finished: function that tells which completions have ended.
        static: whether each step runs the same kernels, see :class:`SharedPromptCache`; on CUDA, steps are then
            replayed as CUDA graphs.

    Returns:
        Token ids, int64, shape (P·G, T) with T ≤ ``max_new_tokens``, padded after the end of each completion.
    """
    choice_of(model)  # raises an error for a model that would ignore the cache
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
    """Run the prompts; return their cache and the logits of each completion's first token, shape (P·G, V)."""
    prompts = DynamicCache(config=model.config)
    hidden_P_S_D = model.base_model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=rotary_positions(batch["position_ids"]),
        past_key_values=prompts,
        use_cache=True,
        **vision,
    ).last_hidden_state
    logits_P_V = logits(model.lm_head, hidden_P_S_D[:, -1])
    cache = SharedPromptCache(prompts, batch["attention_mask"].bool(), generations, static=static)
    return cache, logits_P_V.repeat_interleave(generations, dim=0)


def _step(model: PreTrainedModel, cache: SharedPromptCache, ids_N_1: Tensor, positions_A_N_1: Tensor) -> Tensor:
    hidden_N_1_D = model.base_model(
        input_ids=ids_N_1, position_ids=rotary_positions(positions_A_N_1), use_cache=False, **arguments(cache)
    ).last_hidden_state
    return logits(model.lm_head, hidden_N_1_D[:, -1])


class _Rows:
    """The completions in the batch: equally many of each remaining prompt, some of which may have ended."""

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
        """Record which completions have ended, and tell whether all have."""
        self.ended_N = ended_B[self.rows_N]
        self.ended = ended_B.tolist()
        return all(self.ended)

    def shrink(self, cache: SharedPromptCache) -> bool:
        """Remove completions that have ended if few enough rows remain (:data:`SHRINK`); tell whether it was done."""
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
    """Return ``width`` places of a group: first those that go on, then ended ones to fill up."""
    return [*going, *(place for place in range(size) if place not in going)][:width]
