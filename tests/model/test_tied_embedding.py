"""Tests of the gradient of an embedding tied to the LM head, against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from grit_lightning.model import lm_head as head
from grit_lightning.model.lm_head import HeadOptions, token_logprobs
from grit_lightning.model.policy import Policy
from grit_lightning.model.tied_embedding import look_up, share_gradient

V, D = 9, 4
PASSES = [[[1, 2, 2], [8, 0, 2]], [[3, 3, 3], [0, 0, 0]], [[5, 6, 7], [7, 7, 1]]]


def gradient(padding: int | None, *, plain: bool) -> Tensor:
    """Return the gradient of a tied weight after several passes of embedding, nonlinearity and head."""
    weight = nn.Parameter(torch.randn(V, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    for ids in map(torch.tensor, PASSES):
        rows = embedding(ids, weight, padding) if plain else look_up(weight, ids, padding)
        hidden, target = rows.tanh().flatten(0, 1), ids.flatten()
        if plain:
            logprobs = linear(hidden, weight).log_softmax(1).gather(1, target[:, None])
        else:
            logprobs, _ = token_logprobs(hidden, weight, target, HeadOptions(target[:0], 1.0, 2, False))
        logprobs.square().sum().backward()
    assert weight.grad is not None
    assert not weight._backward_hooks
    return weight.grad


@pytest.mark.parametrize("padding", [None, 0, 2])
def test_gradient_equals_that_of_plain_autograd(padding: int | None) -> None:
    ours, theirs = (gradient(padding, plain=plain) for plain in (False, True))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_the_tied_weight_has_a_single_gradient_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def take(weight: Tensor) -> Tensor:
        gradient = original(weight)
        made.append(gradient.data_ptr())
        return gradient

    original = head._accumulator
    monkeypatch.setattr(head, "_accumulator", take)
    assert gradient(None, plain=False).data_ptr() == made[0]
    assert len(made) == len(PASSES)
    assert len(set(made)) == 1


def test_the_gradient_is_shared_only_by_trained_tied_weights(backbone) -> None:
    def hooks(**changes) -> int:
        model = backbone.load_model()
        if changes.get("untied"):
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())
        model.requires_grad_(not changes.get("frozen"))
        share_gradient(model)
        return len(model.get_input_embeddings()._forward_hooks)

    assert hooks() == 1
    assert hooks(untied=True) == 0
    assert hooks(frozen=True) == 0


def test_a_models_embedding_has_the_gradient_of_the_whole_model(backbone, prompts, make_group) -> None:
    from grit_lightning.model.packing import pack, plan_rows

    groups = [make_group(prompts[0], [5, 1, 9], 0), make_group(prompts[1], [4], 1)]
    found = []
    for plain in (False, True):
        model = backbone.load_model()
        policy = Policy(model, banned_token_ids=backbone.banned_token_ids, temperature=0.8, logits_chunk=4)
        if plain:
            model.get_input_embeddings()._forward_hooks.clear()
            model.lm_head.__class__ = type("Plain", (nn.Linear,), {})  # computed by autograd
        for rows in plan_rows(groups, 1, [False, False]):  # one completion a pass
            policy(pack(rows, groups)).logprobs_T.sum().backward()
        found.append({name: value.grad for name, value in model.named_parameters()})
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
