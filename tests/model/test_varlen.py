"""Tests of the choice of a variable-length kernel, and of the arguments that the kernels receive."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from grit_lightning.model import varlen
from grit_lightning.model.varlen import Sequences, flash_kernel, kernel, torch_kernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("choice", "device", "dtype", "capability", "expected"),
    [
        ("auto", CUDA, torch.bfloat16, (9, 0), torch_kernel),
        ("auto", CUDA, torch.float16, (8, 0), torch_kernel),
        ("flash", CUDA, torch.bfloat16, (9, 0), flash_kernel),
        ("auto", CUDA, torch.float32, (9, 0), None),
        ("auto", CUDA, torch.bfloat16, (7, 5), None),
        ("auto", CPU, torch.bfloat16, (0, 0), None),
        ("flash", CPU, torch.bfloat16, (0, 0), None),
    ],
)
def test_a_kernel_is_used_for_half_precision_on_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, choice, device, dtype, capability, expected
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert kernel(choice, device, dtype) is expected


def test_boundaries_by_hand() -> None:
    sequences = Sequences.of([5, 3, 4], [5, 8, 9], CPU)
    assert sequences.query_starts.tolist() == [0, 5, 8, 12]
    assert sequences.key_starts.tolist() == [0, 5, 13, 22]
    assert sequences[2:] == (5, 9)
    assert sequences.query_starts.dtype == torch.int32


@pytest.mark.parametrize(("causal", "window"), [(True, (-1, 0)), (False, (-1, -1))])
@pytest.mark.parametrize("release", ["early", "late"])
def test_torchs_kernel_is_told_of_grouped_heads_where_it_must_be(
    monkeypatch: pytest.MonkeyPatch, causal: bool, window: tuple[int, int], release: str
) -> None:
    seen = {}

    def early(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        seen.update(starts=(cu_seq_q, cu_seq_k), most=(max_q, max_k), scale=scale, window=window_size)
        return query

    def late(query, key, value, *rest, enable_gqa: bool = False, **options):
        seen["grouped"] = enable_gqa
        return early(query, key, value, *rest, **options)

    monkeypatch.setattr(varlen, "varlen_attn", {"early": early, "late": late}[release])
    varlen._grouped_heads.cache_clear()
    sequences = Sequences.of([2], [6], CPU)
    torch_kernel(torch.ones(2, 4, 8), torch.ones(6, 2, 8), torch.ones(6, 2, 8), sequences, scale=0.5, causal=causal)
    assert seen.pop("grouped", None) is {"early": None, "late": True}[release]
    assert seen["starts"] == (sequences.query_starts, sequences.key_starts)
    assert (seen["most"], seen["scale"], seen["window"]) == ((2, 6), 0.5, window)
    varlen._grouped_heads.cache_clear()


def test_flash_attns_kernel_gets_its_own_names_of_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def call(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, softmax_scale, causal):
        seen.update(most=(max_seqlen_q, max_seqlen_k), scale=softmax_scale, causal=causal)
        return q

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=call))
    flash_kernel(*[torch.ones(3, 2, 8)] * 3, Sequences.of([3], [3], CPU), scale=0.5, causal=True)
    assert seen == {"most": (3, 3), "scale": 0.5, "causal": True}
