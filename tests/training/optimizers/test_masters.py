"""Tests of split masters and of stochastic rounding: exact, unbiased, independent of any generator."""

from __future__ import annotations

import pytest
import torch

from grit_lightning.training.optimizers.masters import join, round_stochastically, split

SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-40, 3.38e38, -3.38e38, 1.00390625, 1.01171875, -1.00390625, 0.1]
"""Zeros, subnormal numbers, almost the largest ones, and numbers halfway between two in bf16."""


def values() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp(20 * torch.randn(100_000, generator=generator))
    random = (torch.randn(100_000, generator=generator) * spread).clamp(-3e38, 3e38)
    return torch.cat([random, torch.tensor(SPECIAL)])


def test_a_master_is_restored_bit_by_bit_from_the_nearest_bf16_number_and_the_remainder() -> None:
    masters = values()
    weight, remainder = (torch.empty_like(masters, dtype=torch.bfloat16) for _ in range(2))
    split(masters, weight, remainder)
    assert torch.equal(join(weight, remainder).view(torch.int32), masters.view(torch.int32))
    error, least = (weight.double() - masters).abs(), (masters.bfloat16().double() - masters).abs()
    assert torch.equal(error, least)


def test_without_a_remainder_the_master_is_the_weight() -> None:
    weight = values().bfloat16()
    assert torch.equal(join(weight, torch.zeros_like(weight)), weight.float())


@pytest.mark.parametrize("sign", [1, -1])
def test_stochastic_rounding_is_unbiased_and_takes_only_the_two_neighbours(sign: int) -> None:
    step = 2.0**-7  # distance of bf16 numbers above 1
    rounded = torch.empty(1 << 20, dtype=torch.bfloat16)
    round_stochastically(torch.full((1 << 20,), sign * (1 + 0.3 * step)), rounded, seed=7)
    assert set(rounded.unique().tolist()) == {sign, sign * (1 + step)}
    assert (sign * rounded.double().mean() - 1) / step == pytest.approx(0.3, abs=0.003)


def test_numbers_of_bf16_are_kept_by_stochastic_rounding() -> None:
    exact = values().bfloat16()
    rounded = torch.empty_like(exact)
    round_stochastically(exact.float(), rounded, seed=3)
    assert torch.equal(rounded, exact)


def test_the_random_bits_depend_on_the_seed_alone_and_neighbours_are_independent() -> None:
    ups = []
    for seed in (5, 5, 6):
        rounded = torch.empty(1 << 18, dtype=torch.bfloat16)
        round_stochastically(torch.full((1 << 18,), 1 + 2.0**-8), rounded, seed)
        ups.append((rounded > 1).double() - 0.5)
    assert torch.equal(ups[0], ups[1])
    for other in (ups[2], ups[0].roll(1), ups[0].roll(256)):
        assert (ups[0] * other).mean().abs() < 0.002  # ± 0.25 if dependent; 4 standard deviations are 0.002
