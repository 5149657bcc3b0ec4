"""Attention of sequences as a plain loop in float64, to check kernels and layouts against."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from grit_lightning.model.varlen import Sequences


def loop(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, *, scale: float, causal: bool) -> Tensor:
    """Compute variable-length attention query by query; see ``grit_lightning.model.varlen.Kernel``."""
    shared = query.shape[1] // key.shape[1]
    outputs = []
    pairs = zip(pairwise(sequences.query_starts.tolist()), pairwise(sequences.key_starts.tolist()), strict=True)
    for (first, end), (first_key, end_key) in pairs:
        assert 0 < end - first <= sequences.most_queries
        assert end - first <= end_key - first_key <= sequences.most_keys
        keys = key[first_key:end_key].double().repeat_interleave(shared, dim=1)
        values = value[first_key:end_key].double().repeat_interleave(shared, dim=1)
        for place in range(first, end):
            seen = len(keys) - (end - 1 - place) if causal else len(keys)
            scores = torch.einsum("hd,shd->hs", query[place].double(), keys[:seen]) * scale
            outputs.append(torch.einsum("hs,shd->hd", scores.softmax(dim=1), values[:seen]))
    return torch.stack(outputs).to(query.dtype)
