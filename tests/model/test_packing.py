"""Tests of packing: plans by hand, entropies against a single sequence."""

from __future__ import annotations

import torch

from grit_lightning.model.packing import PackedRow, pack, plan_rows
from grit_lightning.model.policy import Policy


def test_rows_share_a_pass_up_to_the_bound_and_long_groups_are_split(prompts, make_group) -> None:
    groups = [make_group(prompts[0], [5, 9, 3], 0), make_group(prompts[1], [4, 4, 4], 1)]
    prompt, other = (group.prompt.num_tokens for group in groups)
    whole = [PackedRow(0, (0, 1, 2), prompt + 14), PackedRow(1, (0, 1, 2), other + 9)]
    whole.sort(key=lambda row: -row.num_tokens)
    both = sum(row.num_tokens for row in whole)
    assert plan_rows(groups, both, [False, False]) == [whole]
    assert plan_rows(groups, both - 1, [False, False]) == [[whole[0]], [whole[1]]]
    assert plan_rows(groups, both, [True, False]) == [[PackedRow(1, (0, 1, 2), other + 9)]]
    # Without their last tokens the completions take 4, 8 and 2 positions.
    split = [[PackedRow(0, (0, 1), prompt + 12)], [PackedRow(0, (2,), prompt + 2)]]
    for bound, expected in ((12, split), (13, split), (14, [[PackedRow(0, (0, 1, 2), prompt + 14)]])):
        assert plan_rows(groups[:1], prompt + bound, [False]) == expected
    # Nothing fits: one completion a pass.
    assert [row.completions for (row,) in plan_rows(groups[:1], 1, [False])] == [(1,), (0,), (2,)]


def test_a_short_row_joins_the_first_pass_that_has_room(prompts, make_group) -> None:
    groups = [make_group(prompts[0], lengths) for lengths in ([40, 41], [30, 31], [9, 2], [1, 1])]
    prompt = prompts[0].num_tokens
    plan = plan_rows(groups, 2 * prompt + 79 + 9, [False] * 4)
    assert [[row.group for row in rows] for rows in plan] == [[0, 2], [1, 3]]


def test_entropy_is_that_of_the_sampling_distribution(backbone, prompts, make_group) -> None:
    group = make_group(prompts[0], [3, 2])
    model = backbone.load_model()
    policy = Policy(model, banned_token_ids=backbone.banned_token_ids, temperature=2.0, logits_chunk=100)
    with torch.no_grad():
        (rows,) = plan_rows([group], 10_000, [False])
        entropy = policy(pack(rows, [group])).entropy_T
        ids = torch.cat([group.prompt.input_ids_S, torch.tensor(group.completions[0].token_ids)])[None]
        logits = model(
            input_ids=ids, mm_token_type_ids=(ids == backbone.config.image_token_id).int(), **group.prompt.vision
        ).logits
    allowed = sorted(set(range(logits.shape[-1])) - set(backbone.banned_token_ids))
    distribution = torch.distributions.Categorical(logits=logits[0, group.prompt.num_tokens - 1 : -1, allowed] / 2.0)
    torch.testing.assert_close(entropy[:3], distribution.entropy(), rtol=1e-5, atol=1e-5)
