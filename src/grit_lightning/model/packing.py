"""One prompt and its completions in one sequence: the prompt, and its image, is computed once per group and pass.

A row is ``[prompt | o_1 | … | o_G]``. A block mask lets a completion see the prompt and itself only, and positions
restart after the prompt for each completion, so the model computes exactly what it would for each ``[prompt | o_i]``
alone. The last token of a completion predicts nothing that was sampled, so it is left out of the input.

Rows are collected into micro-batches bounded by tokens. A group too long for the bound is split into several rows,
each with its own copy of the prompt; the loss is a sum over tokens, so the split does not change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from grit_lightning.types import Completion, Group, Prompt

PAD_SEGMENT = -1
PROMPT_SEGMENT = 0


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row of a micro-batch: a group's prompt with some of its completions.

    Attributes:
        group: index into the step's groups on this rank.
        completions: indices of the group's completions.
        num_tokens: positions of the row, without padding.
    """

    group: int
    completions: tuple[int, ...]
    num_tokens: int


@dataclass(frozen=True, eq=False, slots=True)
class PackedBatch:
    """A micro-batch, ready for the model.

    Attributes:
        input_ids_B_S: int64; rows padded on the right.
        position_ids_A_B_S: int64, rotary positions per axis.
        segments_B_S: int64, what a position belongs to; see :func:`block_mask`, which tells what it may see.
        parts_B: of each row the lengths of its segments, in their order: prompt, completions, padding.
        vision: the vision tower's arguments, concatenated over rows.
        source_T: int64, for each completion token the index into the flattened (B·S) hidden states that predicts it.
        target_T: int64, the token ids.
        token_T: int64, the token's place among all completion tokens of the step on this rank.
        completion_T: int64, which completion of the step on this rank it belongs to, counted through all groups.
    """

    input_ids_B_S: Tensor
    position_ids_A_B_S: Tensor
    segments_B_S: Tensor
    parts_B: tuple[tuple[int, ...], ...]
    vision: Mapping[str, Tensor]
    source_T: Tensor
    target_T: Tensor
    token_T: Tensor
    completion_T: Tensor

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on another device."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        tensors: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, vision={key: value.to(device) for key, value in self.vision.items()}, **tensors)


def plan_rows(groups: Sequence[Group], max_tokens: int, skip: Sequence[bool]) -> list[list[PackedRow]]:
    """Micro-batches of rows whose padded size, rows × longest row, is at most ``max_tokens``.

    A single completion with its prompt may exceed the bound; it then makes a micro-batch by itself.

    Args:
        groups: the step's groups on this rank.
        max_tokens: the bound on positions in one pass.
        skip: per group, whether to leave it out.
    """
    rows = [row for index, group in enumerate(groups) if not skip[index] for row in _split(index, group, max_tokens)]
    rows.sort(key=lambda row: -row.num_tokens)  # rows of similar length share a micro-batch; stable, so reproducible
    batches: list[list[PackedRow]] = []
    for row in rows:
        # Sorted: the first row of a micro-batch is its longest, which every row is padded to.
        if batches and (len(batches[-1]) + 1) * batches[-1][0].num_tokens <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _split(index: int, group: Group, max_tokens: int) -> list[PackedRow]:
    rows: list[PackedRow] = []
    members: list[int] = []
    used = prompt = group.prompt.num_tokens
    for member, completion in enumerate(group.completions):
        tokens = len(completion.token_ids) - 1
        if members and used + tokens > max_tokens:
            rows.append(PackedRow(index, tuple(members), used))
            members, used = [], prompt
        members.append(member)
        used += tokens
    return [*rows, PackedRow(index, tuple(members), used)]


def fill_up(plan: list[list[PackedRow]], count: int, groups: Sequence[Group]) -> list[tuple[list[PackedRow], bool]]:
    """The micro-batches of a plan, followed by as many of one completion, which do not count, as make ``count``.

    Second of each pair: whether it counts.
    """
    filler = [PackedRow(0, (0,), groups[0].prompt.num_tokens + len(groups[0].completions[0].token_ids) - 1)]
    return [(rows, True) for rows in plan] + [(filler, False)] * (count - len(plan))


def block_mask(segments_B_S: Tensor) -> Tensor:
    """Which key a query may see, bool, shape (B, 1, S, S): earlier or itself, and of the prompt or the same segment.

    Segments: 0 the prompt, 1.. the completions, −1 padding. Padding sees itself, so that no softmax is empty.
    """
    length = segments_B_S.shape[1]
    causal_S_S = torch.ones(length, length, dtype=torch.bool, device=segments_B_S.device).tril()
    query_B_S_1, key_B_1_S = segments_B_S[:, :, None], segments_B_S[:, None, :]
    visible_B_S_S = (key_B_1_S == PROMPT_SEGMENT) | (key_B_1_S == query_B_S_1)
    return (causal_S_S & visible_B_S_S)[:, None]


def pack(rows: Sequence[PackedRow], groups: Sequence[Group], pad_token_id: int) -> PackedBatch:
    """Lay the rows of one micro-batch out as tensors. ``groups`` are all groups of the step on this rank."""
    length = max(row.num_tokens for row in rows)
    packed = [_pack_row(groups[row.group], row) for row in rows]
    axes = groups[0].prompt.position_ids_A_S.shape[0]
    input_ids_B_S = torch.full((len(rows), length), pad_token_id)
    position_ids_A_B_S = torch.zeros((axes, len(rows), length), dtype=torch.long)
    segments_B_S = torch.full((len(rows), length), PAD_SEGMENT)
    for index, (row, (ids_S, positions_A_S, segments_S, _)) in enumerate(zip(rows, packed, strict=True)):
        input_ids_B_S[index, : row.num_tokens] = ids_S
        position_ids_A_B_S[:, index, : row.num_tokens] = positions_A_S
        segments_B_S[index, : row.num_tokens] = segments_S
    firsts = [0, *accumulate(len(group.completions) for group in groups)]
    owners = torch.tensor([firsts[row.group] + member for row in rows for member in row.completions])
    lengths_C = completion_lengths(groups)
    starts_C = lengths_C.cumsum(0) - lengths_C
    token_T = torch.cat([torch.arange(int(lengths_C[owner])) + starts_C[owner] for owner in owners])
    return PackedBatch(
        input_ids_B_S=input_ids_B_S,
        position_ids_A_B_S=position_ids_A_B_S,
        segments_B_S=segments_B_S,
        parts_B=tuple(_parts(row, groups[row.group], length) for row in rows),
        vision=concatenate_vision([groups[row.group].prompt for row in rows]),
        source_T=torch.cat([source_T + index * length for index, (*_, source_T) in enumerate(packed)]),
        target_T=torch.tensor([token for row in rows for token in _targets(groups[row.group], row)]),
        token_T=token_T,
        completion_T=owners.repeat_interleave(lengths_C[owners]),
    )


def _pack_row(group: Group, row: PackedRow) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids (S,), positions (A, S), segments (S,) and sources (T,), the last relative to the row."""
    prompt = group.prompt
    inputs = [torch.tensor(group.completions[member].token_ids[:-1], dtype=torch.long) for member in row.completions]
    next_position_A_1 = prompt.position_ids_A_S.amax() + 1 + torch.zeros(prompt.position_ids_A_S.shape[0], 1).long()
    positions = [next_position_A_1 + torch.arange(len(ids)) for ids in inputs]
    segments = [torch.full((len(ids),), segment) for segment, ids in enumerate(inputs, start=PROMPT_SEGMENT + 1)]
    starts = torch.tensor([prompt.num_tokens, *map(len, inputs)]).cumsum(0).tolist()
    # A completion's first token is predicted from the prompt's last position, the others from the token before.
    sources = [torch.tensor([prompt.num_tokens - 1, *range(start, end)]) for start, end in pairwise(starts)]
    return (
        torch.cat([prompt.input_ids_S, *inputs]),
        torch.cat([prompt.position_ids_A_S, *positions], dim=1),
        torch.cat([torch.full((prompt.num_tokens,), PROMPT_SEGMENT), *segments]),
        torch.cat(sources),
    )


def concatenate_vision(prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """The vision tower's arguments of several prompts, concatenated on axis 0 (patches or tiles, and their grids)."""
    return {key: torch.cat([prompt.vision[key] for prompt in prompts]) for key in prompts[0].vision}


def rotary_positions(position_ids_A_B_S: Tensor) -> Tensor:
    """As models take them: (A, B, S) where there are several axes, (B, S) for one."""
    return position_ids_A_B_S[0] if len(position_ids_A_B_S) == 1 else position_ids_A_B_S


def _parts(row: PackedRow, group: Group, length: int) -> tuple[int, ...]:
    completions = (len(group.completions[member].token_ids) - 1 for member in row.completions)
    return (group.prompt.num_tokens, *completions, length - row.num_tokens)


def _targets(group: Group, row: PackedRow) -> list[int]:
    return [token for member in row.completions for token in group.completions[member].token_ids]


def completion_lengths(groups: Sequence[Group]) -> Tensor:
    """Tokens of each completion of the groups, int64, shape (P·G,), in the order ``completion_T`` refers to."""
    return torch.tensor([len(completion.token_ids) for completion in _completions(groups)])


def learned(groups: Sequence[Group]) -> Tensor:
    """Which completion tokens of the groups were not given, bool, in the order ``token_T`` refers to."""
    return torch.cat(
        [torch.arange(len(completion.token_ids)) >= completion.num_given for completion in _completions(groups)]
    )


def truncated(groups: Sequence[Group]) -> Tensor:
    """Whether the token limit cut each completion off, bool, shape (P·G,)."""
    return torch.tensor([completion.truncated for completion in _completions(groups)])


def _completions(groups: Sequence[Group]) -> list[Completion]:
    return [completion for group in groups for completion in group.completions]
