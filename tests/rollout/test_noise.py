"""Tests of the counter-based sampling noise: deterministic, independent, and Gumbel-distributed."""

from __future__ import annotations

import re
import shutil

import pytest
import torch

from grit_lightning.rollout import noise as noise_module
from grit_lightning.rollout.noise import _draw, draw_tokens, fused, gumbel_noise, sequence_key
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, in its own compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_compiled_draw_is_one_kernel_that_writes_only_tokens_and_draws_the_same() -> None:
    from torch._inductor import metrics
    from torch._inductor.utils import run_and_get_code

    generator = torch.Generator().manual_seed(0)
    logits, position = 3 * torch.randn(6, 5000, generator=generator), torch.tensor([17])
    banned = torch.zeros(5000, dtype=torch.bool).index_fill_(0, torch.tensor([3, 70]), True)
    torch._dynamo.reset()
    metrics.reset()
    tokens, code = run_and_get_code(torch.compile(_draw, dynamic=True), logits, keys(6), position, banned, 0.9)
    assert metrics.generated_kernel_count == 1
    # The only memory that it asks for is that of the tokens: one number for each row.
    allocated = [line for line in code[0].splitlines() if "= empty_strided_cpu(" in line]
    assert len(allocated) == 1
    assert "torch.int64" in allocated[0]
    assert re.search(r"\(\(s\d+, ?\)", allocated[0])  # of one axis
    expected = draw_tokens(logits.clone(), keys(6), position, temperature=0.9, banned=(3, 70))
    assert torch.equal(tokens, expected)


def test_without_a_working_compiler_the_draw_is_the_same_with_one_warning(monkeypatch, caplog) -> None:
    def broken(function, **_):
        def call(*_):
            raise RuntimeError("no triton here\nand more")

        return call

    monkeypatch.setattr(noise_module.torch, "compile", broken)
    fused.cache_clear()
    logits, position = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)), torch.tensor([4])
    banned = torch.zeros(50, dtype=torch.bool)
    expected = draw_tokens(logits.clone(), keys(3), position, temperature=0.5, banned=())
    for _ in range(2):
        assert torch.equal(fused(_draw)(logits, keys(3), position, banned, 0.5), expected)
    assert [record.message for record in caplog.records] == [
        "the sampling noise is slower than it could be: torch.compile failed (no triton here)"
    ]
    fused.cache_clear()


def test_each_row_may_have_its_own_position() -> None:
    positions = torch.tensor([3, 0, 71])
    rows = [gumbel_noise(keys(3)[i : i + 1], int(position), 9) for i, position in enumerate(positions)]
    assert torch.equal(gumbel_noise(keys(3), positions, 9), torch.cat(rows))
    logits = torch.randn(3, 9)
    drawn = [
        draw_tokens(logits[i : i + 1].clone(), keys(3)[i : i + 1], int(p), temperature=0.7, banned=(2,))
        for i, p in enumerate(positions)
    ]
    assert torch.equal(draw_tokens(logits.clone(), keys(3), positions, temperature=0.7, banned=(2,)), torch.cat(drawn))
