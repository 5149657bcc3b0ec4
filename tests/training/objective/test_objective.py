"""Tests of the objective against token loops written from the papers, hand-calculated values and known gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from grit_lightning.errors import ConfigError
from grit_lightning.training.objective import (
    Objective,
    advantages,
    kl_divergence,
    mean_std,
    moments,
    policy_loss,
    token_weights,
    zero_variance,
)

DEFAULTS = {
    "normalization": "grpo",
    "importance": "token",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "kl": "k3",
    "beta": 0.01,
    "advantage_scale": "group",
    "iterations": 1,
    "mask_truncated": False,
    "skip_zero_variance": False,
}
NAN = math.nan


def objective(**changes) -> Objective:
    return Objective(**(DEFAULTS | changes))


# ---- advantages ----


def test_group_advantages_by_hand() -> None:
    # mean 2, deviations −1 0 1, unbiased std 1.
    result = advantages(torch.tensor([[1.0, 2.0, 3.0]]), "group")
    torch.testing.assert_close(result, torch.tensor([[-1.0, 0.0, 1.0]]) / 1.0001)


def test_unscaled_and_batch_scaled_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(advantages(rewards, "none"), torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
    _, std = mean_std(moments(rewards))  # of 1 3 0 0: mean 1, squared deviations 0 4 1 1, over 3
    assert std.item() == pytest.approx(math.sqrt(2.0))
    torch.testing.assert_close(
        advantages(rewards, "batch", std.float()), torch.tensor([[-1.0, 1.0], [0.0, 0.0]]) / (math.sqrt(2) + 1e-4)
    )


@pytest.mark.parametrize("scale", ["group", "none"])
def test_an_unscored_completion_has_no_part_in_its_group(scale: str) -> None:
    with_unscored = advantages(torch.tensor([[1.0, NAN, 4.0, 2.0]]), scale)
    without = advantages(torch.tensor([[1.0, 4.0, 2.0]]), scale)
    torch.testing.assert_close(with_unscored[:, [0, 2, 3]], without)
    assert with_unscored[0, 1] == 0


def test_advantages_of_a_group_with_no_or_one_score_are_zero() -> None:
    assert advantages(torch.tensor([[NAN, NAN], [NAN, 3.0]]), "group").tolist() == [[0, 0], [0, 0]]


def test_zero_variance_counts_equal_and_unscored_groups() -> None:
    rewards = torch.tensor([[1.0, 1.0], [1.0, 2.0], [NAN, NAN], [NAN, 2.0]])
    assert zero_variance(rewards).tolist() == [True, False, True, True]


def test_moments_add_up_over_ranks() -> None:
    values = torch.randn(7, generator=torch.Generator().manual_seed(0))
    mean, std = mean_std(moments(values[:3]) + moments(torch.cat([values[3:], torch.tensor([NAN])])))
    assert (mean.item(), std.item()) == (pytest.approx(values.mean().item()), pytest.approx(values.std().item()))


# ---- KL ----


@pytest.mark.parametrize(("estimator", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) + 0.5 - 1)])
def test_kl_estimators_by_hand(estimator: str, expected: float) -> None:
    assert kl_divergence(torch.tensor([-1.0]), torch.tensor([-1.5]), estimator).item() == pytest.approx(expected)


def test_k1_and_k3_are_unbiased() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.3, 0.3, 0.4]).log()
    exact = (policy.exp() * (policy - reference)).sum()
    for estimator in ("k1", "k3"):
        expectation = (policy.exp() * kl_divergence(policy, reference, estimator)).sum()
        torch.testing.assert_close(expectation, exact)


# ---- the loss, against an independent loop ----


def loop_loss(steps, advantages_, keep, options: Objective, limit: int) -> torch.Tensor:
    """Compute the papers' loss token by token; ``steps`` holds the tensors (logp, old, ref) of each completion."""
    kept = [i for i in range(len(steps)) if keep[i]]
    all_tokens = sum(len(steps[i][0]) for i in kept)
    total = torch.zeros((), dtype=torch.float64)
    for i in kept:
        logp, old, ref = steps[i]
        sequence_ratio = torch.exp((logp - old).sum() / len(logp))
        per_completion = torch.zeros((), dtype=torch.float64)
        for t in range(len(logp)):
            ratio = sequence_ratio if options.importance == "sequence" else torch.exp(logp[t] - old[t])
            low, high = 1 - options.clip_low, 1 + options.clip_high
            clipped = torch.tensor(low, dtype=ratio.dtype) if ratio < low else ratio
            clipped = torch.tensor(high, dtype=ratio.dtype) if ratio > high else clipped
            a = advantages_[i]
            unclipped_term, clipped_term = ratio * a, clipped * a
            term = unclipped_term if unclipped_term < clipped_term else clipped_term
            if ref is not None:
                d = logp[t] - ref[t]
                kl = {"k1": d, "k2": 0.5 * d * d, "k3": torch.exp(-d) - (-d) - 1}[options.kl]
                term = term - options.beta * kl
            per_completion = per_completion - term
        if options.normalization == "grpo":
            total = total + per_completion / len(logp) / len(kept)
        elif options.normalization == "dapo":
            total = total + per_completion / all_tokens
        else:
            total = total + per_completion / limit / len(kept)
    return total


def random_step(seed: int = 0, lengths: tuple[int, ...] = (3, 1, 5, 4)):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: -torch.rand(n, generator=generator, dtype=torch.float64) * 2  # noqa: E731
    logprobs = [draw(n).requires_grad_() for n in lengths]
    old = [(lp + 0.5 * torch.randn(len(lp), generator=generator)).detach() for lp in logprobs]
    ref = [draw(n) for n in lengths]
    return logprobs, old, ref, torch.randn(len(lengths), generator=generator, dtype=torch.float64)


OPTIONS = [
    dict(zip(("normalization", "importance", "kl", "beta"), values, strict=True))
    for values in itertools.product(("grpo", "dr_grpo", "dapo"), ("token", "sequence"), ("k1", "k2", "k3"), (0.0, 0.3))
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("keep", [(True, True, True, True), (True, False, True, True)], ids=["all", "one_left_out"])
def test_loss_and_gradient_equal_the_loop(options: dict, keep: tuple[bool, ...]) -> None:
    logprobs, old, ref, advantages_ = random_step()
    config = objective(**options, clip_low=0.1, clip_high=0.25)
    with_ref = config.beta > 0
    expected = loop_loss(
        [(lp, o, r if with_ref else None) for lp, o, r in zip(logprobs, old, ref, strict=True)],
        advantages_, keep, config, limit=10,
    )  # fmt: skip
    expected_gradients = torch.autograd.grad(expected, logprobs, allow_unused=True)

    lengths = torch.tensor([len(lp) for lp in logprobs])
    keep_C = torch.tensor(keep)
    weights = token_weights(
        lengths,
        keep_C,
        normalization=config.normalization,
        num_completions=float(keep_C.sum()),
        num_tokens=float((lengths * keep_C).sum()),
        max_completion_tokens=10,
    )
    terms = policy_loss(
        torch.cat(logprobs),
        torch.cat(old),
        torch.cat(ref) if with_ref else None,
        advantages_C=advantages_,
        weights_C=weights.double(),
        completion_T=torch.arange(4).repeat_interleave(lengths),
        objective=config,
    )
    torch.testing.assert_close(terms.loss, expected, rtol=1e-6, atol=1e-8)
    gradients = torch.autograd.grad(terms.loss, logprobs)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        wanted = torch.zeros_like(gradient) if wanted is None else wanted
        torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-8)


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    logprobs, _, _, advantages_ = random_step()
    lengths = torch.tensor([len(lp) for lp in logprobs])
    flat = torch.cat(logprobs)
    terms = policy_loss(
        flat,
        flat.detach(),
        None,
        advantages_C=advantages_,
        weights_C=torch.full((4,), 0.5, dtype=torch.float64),
        completion_T=torch.arange(4).repeat_interleave(lengths),
        objective=objective(beta=0.0),
    )
    gradients = torch.autograd.grad(terms.loss, logprobs)
    for gradient, advantage in zip(gradients, advantages_, strict=True):
        torch.testing.assert_close(gradient, (-0.5 * advantage).expand_as(gradient))  # more likely where A > 0
    assert terms.clipped == 0


def test_clipped_counts_tokens_whose_gradient_the_clip_cuts() -> None:
    ratios = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.0])
    terms = policy_loss(
        ratios.log(),
        torch.zeros(5),
        None,
        advantages_C=torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0]),
        weights_C=torch.ones(5),
        completion_T=torch.arange(5),
        objective=objective(),
    )
    assert terms.clipped == 2  # too high with A > 0, too low with A < 0; the pessimistic minimum keeps the others


@pytest.mark.parametrize(
    ("change", "key"), [({"clip_low": -0.1}, "clip_low"), ({"beta": -1.0}, "beta"), ({"iterations": 0}, "iterations")]
)
def test_values_out_of_range_are_named(change: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=f"objective.{key} is"):
        objective(**change)
