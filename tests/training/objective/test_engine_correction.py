"""Tests of the weights for an engine that samples with other probabilities, against loops over completions."""

from __future__ import annotations

import math

import pytest
import torch

from grit_lightning.errors import ConfigError
from grit_lightning.training.objective import Objective, engine_ratio, engine_weights, policy_loss

LENGTHS = (3, 1, 5, 4)
KINDS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "none")
CAP = 1.3


def objective(**changes) -> Objective:
    options = {
        "normalization": "grpo", "importance": "token", "clip_low": 0.1, "clip_high": 0.2, "kl": "k3", "beta": 0.3,
        "advantage_scale": "group", "iterations": 1, "mask_truncated": False, "skip_zero_variance": False,
    }  # fmt: skip
    return Objective(**(options | changes))


def random_step() -> tuple[list, list, list, list]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: -torch.rand(n, generator=generator, dtype=torch.float64) * 2  # noqa: E731
    logprobs = [draw(n).requires_grad_() for n in LENGTHS]
    noise = lambda lp, scale: (lp + scale * torch.randn(len(lp), generator=generator)).detach()  # noqa: E731
    old = [noise(lp, 0.2) for lp in logprobs]
    return logprobs, old, [noise(lp, 0.4) for lp in old], [draw(n) for n in LENGTHS]


def loop_weight(old: torch.Tensor, engine: torch.Tensor, t: int, kind: str) -> float:
    """Compute the published weight of token t of one completion with Python's own numbers."""
    if kind == "none":
        return 1.0
    places = range(len(old)) if kind.startswith("sequence") else [t]
    ratio = math.prod(math.exp(float(old[k])) / math.exp(float(engine[k])) for k in places)
    if kind.endswith("truncate"):
        return min(ratio, CAP)
    return ratio if ratio <= CAP else 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_equal_the_loop(kind: str) -> None:
    logprobs, old, engine, ref = random_step()
    advantages_C = torch.tensor([1.0, -0.5, 2.0, -1.5], dtype=torch.float64)
    config = objective(engine_correction=kind, engine_cap=CAP)
    expected, bounded = torch.zeros((), dtype=torch.float64), 0
    for i, length in enumerate(LENGTHS):
        for t in range(length):
            weight = loop_weight(old[i], engine[i], t, kind)
            bounded += weight in (CAP, 0.0)
            ratio = torch.exp(logprobs[i][t] - old[i][t])
            clipped = ratio.clamp(0.9, 1.2)
            term = torch.minimum(ratio * advantages_C[i], clipped * advantages_C[i])
            d = logprobs[i][t] - ref[i][t]
            kl = torch.exp(-d) + d - 1
            expected = expected - (weight * term - config.beta * kl) / length / len(LENGTHS)
    assert (bounded > 0) == (kind != "none")  # there is something to bound
    wanted = torch.autograd.grad(expected, logprobs)

    completion_T = torch.arange(4).repeat_interleave(torch.tensor(LENGTHS))
    ratio_T = engine_ratio(torch.cat(old), torch.cat(engine), completion_T, kind)
    terms = policy_loss(
        torch.cat(logprobs),
        torch.cat(old),
        torch.cat(ref),
        advantages_C=advantages_C,
        weights_C=1 / torch.tensor(LENGTHS, dtype=torch.float64) / len(LENGTHS),
        completion_T=completion_T,
        objective=config,
        engine_weights_T=engine_weights(ratio_T, kind, CAP),
    )
    torch.testing.assert_close(terms.loss, expected, rtol=1e-6, atol=1e-8)
    for gradient, one in zip(torch.autograd.grad(terms.loss, logprobs), wanted, strict=True):
        torch.testing.assert_close(gradient, one, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_probabilities_need_no_correction(kind: str) -> None:
    logprobs_T, completion_T = -torch.rand(6), torch.tensor([0, 0, 0, 2, 2, 2])
    ratio_T = engine_ratio(logprobs_T, logprobs_T, completion_T, kind)
    assert ratio_T.tolist() == engine_weights(ratio_T, kind, CAP).tolist() == [1.0] * 6


def test_no_tokens_have_no_weights() -> None:
    none = torch.empty(0)
    assert engine_ratio(none, none, torch.empty(0, dtype=torch.long), "sequence_mask").shape == (0,)


def test_a_cap_that_allows_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective.engine_cap is 0, expected a number above 0"):
        objective(engine_cap=0)
