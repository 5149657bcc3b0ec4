"""Tests of attention over packed rows, by sequence and in one call, against one sequence at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention.bias import CausalBias
from torch.nn.functional import scaled_dot_product_attention

from grit_lightning.model import packed_layout, varlen
from grit_lightning.model.packed_layout import PackedLayout
from support.attention import loop

# Prompts of 5, 2 and 3; a completion of no input, as one of a single token has; a prompt without any input after it.
ROWS = ((5, 3, 0, 4), (2, 1, 6), (3, 0))
HEADS, SIZE, SCALE = 4, 8, 0.3
CPU = torch.device("cpu")


def tensors(key_heads: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, sum(map(sum, ROWS)), SIZE) for heads in (HEADS, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def one_at_a_time(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend over ``[prompt | completion]``, one completion at a time, each with its whole causal mask."""
    outputs, start = [], 0
    for prompt, *completions in ROWS:
        prompt_places = list(range(start, start + prompt))
        outputs.append(whole(*(tensor[:, :, prompt_places] for tensor in (query, key, value))))
        start += prompt
        for length in completions:
            places = [*prompt_places, *range(start, start + length)]
            outputs.append(whole(*(tensor[:, :, places] for tensor in (query, key, value)))[:, :, prompt:])
            start += length
    return torch.cat(outputs, dim=2)


def whole(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    shared = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(shared, dim=1).transpose(-1, -2) * SCALE
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ value.repeat_interleave(shared, dim=1)


@pytest.fixture(params=["by sequence", "one call"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of queries of the calls of the variable-length kernel, which a plain loop replaces."""
    seen: list[int] = []

    def counted(query: Tensor, *rest, **options) -> Tensor:
        seen.append(len(query))
        return loop(query, *rest, **options)

    if request.param == "one call":
        monkeypatch.setattr(packed_layout, "kernel", lambda *_: counted)
    else:
        seen.append(-1)
    return seen


@pytest.mark.parametrize("key_heads", [HEADS, 2, 1])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=str)
def test_packed_attention_equals_one_sequence_at_a_time(key_heads, dtype, atol, calls) -> None:
    ours, theirs = tensors(key_heads, dtype), tensors(key_heads, dtype)
    output, expected = PackedLayout(ROWS, "auto", CPU).attend(0, *ours, SCALE), one_at_a_time(*theirs)
    assert calls in ([-1], [sum(map(sum, ROWS))])  # a single call
    torch.testing.assert_close(output, expected, rtol=0, atol=atol)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for result in (output, expected):
        (result * upstream).sum().backward()
    for value, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value.grad, other.grad, rtol=0, atol=10 * atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_rows_never_pass_a_mask(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    masks: list[object] = []

    def spy(*args, attn_mask=None, **kwargs):
        masks.append(attn_mask)
        return scaled_dot_product_attention(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(packed_layout, "scaled_dot_product_attention", spy)
    PackedLayout(ROWS, "auto", CPU).attend(0, *tensors(2, dtype), SCALE)
    assert len(masks) == 7  # three prompts, four completions that have inputs
    assert all(mask is None or isinstance(mask, CausalBias) for mask in masks)


def test_queries_and_keys_get_the_dtype_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []

    def spy(query: Tensor, key: Tensor, value: Tensor, *rest, **options) -> Tensor:
        seen.extend(tensor.dtype for tensor in (query, key, value))
        return loop(query, key, value, *rest, **options)

    monkeypatch.setattr(varlen, "has_varlen", lambda device: True)
    monkeypatch.setattr(varlen, "torch_kernel", spy)
    query, key, value = tensors(2, torch.float32)
    output = PackedLayout(ROWS, "auto", CPU).attend(0, query, key, value.bfloat16(), SCALE)
    assert {*seen, output.dtype} == {torch.bfloat16}
