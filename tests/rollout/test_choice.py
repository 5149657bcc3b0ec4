"""Tests of the log-probabilities of drawn tokens, against the distribution by definition."""

from __future__ import annotations

import torch

from grit_lightning.rollout.choice import Draw


def test_logprobs_are_those_of_the_softmax_at_the_temperature_without_banned_tokens() -> None:
    logits, tokens = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 8, 5])
    before = logits.clone()
    weights = (logits / 0.7).exp()
    weights[:, [2, 7]] = 0
    expected = (weights / weights.sum(dim=1, keepdim=True)).log()[torch.arange(4), tokens]
    torch.testing.assert_close(Draw(0.7, 0, 1.0, (2, 7)).logprobs(logits, tokens), expected)
    assert torch.equal(logits, before)
