"""Tests of the counter-based sampling noise: deterministic, independent, and Gumbel-distributed."""

from __future__ import annotations

import torch

from grit_lightning.rollout.noise import gumbel_noise, sequence_key
from support.gumbel_noise import GumbelNoise


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor([sequence_key(seed, 0, slot, 0) for slot in range(count)])


def splitmix64(state: int) -> int:
    """Return the SplitMix64 finalizer of ``state``, written from the published algorithm in unbounded integers."""
    mask = (1 << 64) - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_noise_is_splitmix64_of_key_and_counter() -> None:
    key, position = sequence_key(3, 1, 4, 1), 17
    noise = gumbel_noise(torch.tensor([key]), position, 50)[0]
    for token in (0, 1, 49):
        bits = splitmix64(key + (token + (position << 32)) * 0x9E3779B97F4A7C15)
        uniform = torch.tensor(((bits >> 41) + 0.5) / 2**23)
        torch.testing.assert_close(noise[token], -torch.log(-torch.log(uniform)), rtol=1e-5, atol=1e-6)


def test_every_part_of_key_and_counter_changes_the_noise() -> None:
    distinct = {sequence_key(s, t, p, g) for s in range(3) for t in range(3) for p in range(3) for g in range(3)}
    assert len(distinct) == 81
    one_key = keys(1)
    assert not torch.equal(gumbel_noise(one_key, 0, 100), gumbel_noise(one_key, 1, 100))


def test_noise_of_a_row_does_not_depend_on_the_batch() -> None:
    all_rows = gumbel_noise(keys(5), 3, 1000)
    assert torch.equal(gumbel_noise(keys(5)[2:3], 3, 1000)[0], all_rows[2])


def test_noise_is_standard_gumbel_and_finite() -> None:
    noise = gumbel_noise(keys(100), 0, 10_000)
    assert noise.isfinite().all()
    assert abs(noise.mean().item() - 0.5772) < 0.005  # Euler–Mascheroni; standard error 0.0013
    assert abs(noise.var().item() - torch.pi**2 / 6) < 0.02
    adjacent = torch.corrcoef(torch.stack([noise[:, :-1].flatten(), noise[:, 1:].flatten()]))[0, 1]
    between_rows = torch.corrcoef(torch.stack([noise[:-1].flatten(), noise[1:].flatten()]))[0, 1]
    assert max(abs(adjacent), abs(between_rows)) < 0.005


def test_argmax_of_noisy_logits_samples_the_softmax() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -torch.inf])
    draws = 40_000
    processor = GumbelNoise(keys(draws), prompt_length=7)
    tokens = processor(torch.zeros(draws, 9, dtype=torch.long), logits.expand(draws, 5)).argmax(-1)
    counts = torch.bincount(tokens, minlength=5).double()
    expected = logits.softmax(-1).double() * draws
    assert counts[4] == 0
    chi_squared = ((counts - expected)[:4].square() / expected[:4]).sum()
    assert chi_squared < 16.3  # three degrees of freedom: exceeded once in a thousand
