"""Packing of a prompt and its completions into one row, so that prompt and image are computed once per group and pass.

A row is ``[prompt | o_1 | … | o_G]``. A completion sees only the prompt and itself (:mod:`.packed_layout`), and
positions restart after the prompt for each completion. The model therefore computes exactly what it would for each
``[prompt | o_i]`` alone. The last token of a completion is left out of the input, because no sampled token follows it.

Rows are collected into micro-batches of a limited number of tokens, in which they lie one after the other, without
padding. A group that exceeds the limit is split into several rows, each with its own copy of the prompt. The loss is a
sum over tokens, so the split does not change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from grit_lightning.types import Completion, Group, Prompt


@dataclass(frozen=True, slots=True)
class PackedRow:
    """The plan of one row of a micro-batch: a group's prompt with some of its completions.

    Attributes:
        group: index of the group among the step's groups on this rank.
        completions: indices of the completions within the group.
        num_tokens: length of the row.
    """

    group: int
    completions: tuple[int, ...]
    num_tokens: int


@dataclass(frozen=True, eq=False, slots=True)
class PackedBatch:
    """A packed micro-batch as tensors, the input of the policy.

    Attributes:
        input_ids_S: token ids of all rows, int64.
        position_ids_A_S: rotary positions per axis, int64.
        rows: for each row, the lengths of its prompt and of each completion's input.
        vision: arguments of the vision tower, concatenated over rows.
        source_T: for each completion token, the position whose hidden state predicts it, int64.
        target_T: ids of the completion tokens, int64.
        token_T: index of each token among all completion tokens of the step on this rank, int64.
        completion_T: index of each token's completion among all completions of the step on this rank, int64.
    """

    input_ids_S: Tensor
    position_ids_A_S: Tensor
    rows: tuple[tuple[int, ...], ...]
    vision: Mapping[str, Tensor]
    source_T: Tensor
    target_T: Tensor
    token_T: Tensor
    completion_T: Tensor

    def to(self, device: torch.device) -> PackedBatch:
        """Return a copy of the batch on ``device``."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        tensors: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, vision={key: value.to(device) for key, value in self.vision.items()}, **tensors)


def plan_rows(groups: Sequence[Group], max_tokens: int, skip: Sequence[bool]) -> list[list[PackedRow]]:
    """Plan micro-batches of at most ``max_tokens`` positions.

    A single completion with its prompt may exceed the limit; it then forms a micro-batch by itself.

    Args:
        groups: the step's groups on this rank.
        max_tokens: limit on the positions of one micro-batch.
        skip: for each group, whether to leave it out.

    Returns:
        The rows of each micro-batch, longest rows first.
    """
    rows = [row for index, group in enumerate(groups) if not skip[index] for row in _split(index, group, max_tokens)]
    rows.sort(key=lambda row: -row.num_tokens)  # stable, so reproducible
    batches: list[list[PackedRow]] = []
    room: list[int] = []
    # First fit, longest rows first, needs at most 11/9 of the fewest possible micro-batches, plus one (Dósa 2007).
    for row in rows:
        place = next((index for index, left in enumerate(room) if row.num_tokens <= left), len(room))
        if place == len(room):
            batches.append([])
            room.append(max_tokens)
        batches[place].append(row)
        room[place] -= row.num_tokens
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
    """Pad a plan to ``count`` micro-batches with dummies of one completion each.

    Sharded models need equally many passes on every rank.

    Returns:
        Pairs of a micro-batch's rows and whether it counts towards the loss; a dummy does not.
    """
    filler = [PackedRow(0, (0,), groups[0].prompt.num_tokens + len(groups[0].completions[0].token_ids) - 1)]
    return [(rows, True) for rows in plan] + [(filler, False)] * (count - len(plan))


def pack(rows: Sequence[PackedRow], groups: Sequence[Group]) -> PackedBatch:
    """Build the tensors of one micro-batch from its rows; ``groups`` are all groups of the step on this rank."""
    packed = [_pack_row(groups[row.group], row) for row in rows]
    ids, positions, sources = zip(*packed, strict=True)
    starts = [0, *accumulate(row.num_tokens for row in rows)]
    firsts = [0, *accumulate(len(group.completions) for group in groups)]
    owners = torch.tensor([firsts[row.group] + member for row in rows for member in row.completions])
    lengths_C = completion_lengths(groups)
    starts_C = lengths_C.cumsum(0) - lengths_C
    token_T = torch.cat([torch.arange(int(lengths_C[owner])) + starts_C[owner] for owner in owners])
    return PackedBatch(
        input_ids_S=torch.cat(ids),
        position_ids_A_S=torch.cat(positions, dim=1),
        rows=tuple(_lengths(row, groups[row.group]) for row in rows),
        vision=concatenate_vision([groups[row.group].prompt for row in rows]),
        source_T=torch.cat([source_T + start for source_T, start in zip(sources, starts, strict=False)]),
        target_T=torch.tensor([token for row in rows for token in _targets(groups[row.group], row)]),
        token_T=token_T,
        completion_T=owners.repeat_interleave(lengths_C[owners]),
    )


def _pack_row(group: Group, row: PackedRow) -> tuple[Tensor, Tensor, Tensor]:
    """Return a row's ids (S,), positions (A, S) and sources (T,); sources are positions within the row."""
    prompt = group.prompt
    inputs = [torch.tensor(group.completions[member].token_ids[:-1], dtype=torch.long) for member in row.completions]
    next_position_A_1 = prompt.position_ids_A_S.amax() + 1 + torch.zeros(prompt.position_ids_A_S.shape[0], 1).long()
    positions = [next_position_A_1 + torch.arange(len(ids)) for ids in inputs]
    starts = torch.tensor([prompt.num_tokens, *map(len, inputs)]).cumsum(0).tolist()
    # A completion's first token is predicted from the prompt's last position, the others from the token before.
    sources = [torch.tensor([prompt.num_tokens - 1, *range(start, end)]) for start, end in pairwise(starts)]
    return (
        torch.cat([prompt.input_ids_S, *inputs]),
        torch.cat([prompt.position_ids_A_S, *positions], dim=1),
        torch.cat(sources),
    )


def concatenate_vision(prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """Concatenate the vision tower's arguments of several prompts on axis 0 (patches or tiles, and their grids)."""
    return {key: torch.cat([prompt.vision[key] for prompt in prompts]) for key in prompts[0].vision}


def rotary_positions(position_ids_A_B_S: Tensor) -> Tensor:
    """Return rotary positions in the shape that models expect: (A, B, S) for several axes, (B, S) for one axis."""
    return position_ids_A_B_S[0] if len(position_ids_A_B_S) == 1 else position_ids_A_B_S


def _lengths(row: PackedRow, group: Group) -> tuple[int, ...]:
    return (group.prompt.num_tokens, *(len(group.completions[member].token_ids) - 1 for member in row.completions))


def _targets(group: Group, row: PackedRow) -> list[int]:
    return [token for member in row.completions for token in group.completions[member].token_ids]


def completion_lengths(groups: Sequence[Group]) -> Tensor:
    """Return the token count of each completion, int64, shape (P·G,), in the order that ``completion_T`` indexes."""
    return torch.tensor([len(completion.token_ids) for completion in _completions(groups)])


def learned(groups: Sequence[Group]) -> Tensor:
    """Return which completion tokens are trained on (not given), bool, in the order that ``token_T`` indexes."""
    return torch.cat(
        [torch.arange(len(completion.token_ids)) >= completion.num_given for completion in _completions(groups)]
    )


def truncated(groups: Sequence[Group]) -> Tensor:
    """Tell for each completion whether the token limit cut it off, bool, shape (P·G,)."""
    return torch.tensor([completion.truncated for completion in _completions(groups)])


def _completions(groups: Sequence[Group]) -> list[Completion]:
    return [completion for group in groups for completion in group.completions]
