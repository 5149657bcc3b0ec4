"""Variable-length attention: one call for many sequences that lie one after the other, without masks and padding.

The kernels compute bf16 and fp16 on CUDA. Elsewhere :func:`kernel` returns ``None``, and each sequence is a call of its
own to ``scaled_dot_product_attention``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers.utils import is_flash_attn_2_available

Choice = Literal["auto", "flash"]
"""Values of ``model.attn_implementation``: torch's own kernel, or that of the package flash-attn."""


class Sequences(NamedTuple):
    """Boundaries of sequences in concatenated queries and keys; a sequence has at least as many keys as queries.

    Attributes:
        query_starts: where each sequence's queries begin, and the total number of queries, int32, shape (N + 1,).
        key_starts: the same for keys, int32, shape (N + 1,).
        most_queries: queries of the longest sequence.
        most_keys: keys of the longest sequence.
    """

    query_starts: Tensor
    key_starts: Tensor
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], device: torch.device) -> Self:
        """Return the boundaries of sequences with the given numbers of queries and keys."""
        starts = torch.tensor([[0, *accumulate(queries)], [0, *accumulate(keys)]], dtype=torch.int32).to(device)
        return cls(starts[0], starts[1], max(queries), max(keys))


class Kernel(Protocol):
    """A kernel of variable-length attention."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, *, scale: float, causal: bool
    ) -> Tensor:
        """Return the attention's output, shape (Q, H, D).

        Args:
            query: queries of all sequences, shape (Q, H, D).
            key: keys of all sequences, shape (S, K, D); H / K query heads share a key head.
            value: values of all sequences, shape (S, K, D).
            sequences: their boundaries.
            scale: factor of the scores before the softmax.
            causal: whether the last query of a sequence sees all its keys and each earlier query one key less
                (lower-right alignment); otherwise every query sees all keys of its sequence.
        """
        ...


def kernel(choice: Choice, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Return the kernel for tensors of a dtype on a device; ``None`` if there is none for them."""
    if dtype.itemsize > 2 or not has_varlen(device):
        return None
    return flash_kernel if choice == "flash" else torch_kernel


def has_varlen(device: torch.device) -> bool:
    """Tell whether a device has the kernels: NVIDIA GPUs from compute capability 8.0 (A100) on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def torch_kernel(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, *, scale: float, causal: bool
) -> Tensor:
    """Compute attention with ``torch.nn.attention.varlen``; see :class:`Kernel`."""
    window = (-1, 0) if causal else (-1, -1)
    output = varlen_attn(query, key, value, *sequences, scale=scale, window_size=window, **_grouped_heads())
    assert isinstance(output, Tensor)  # a tuple only where more is asked for
    return output


@cache
def _grouped_heads() -> dict[str, Any]:
    # Early releases take fewer key heads than query heads without being told, later ones only when told.
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def flash_kernel(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, *, scale: float, causal: bool
) -> Tensor:
    """Compute attention with flash-attn, whose causal mask is lower-right from release 2.1 on; see :class:`Kernel`."""
    from flash_attn import flash_attn_varlen_func

    output: Tensor = flash_attn_varlen_func(query, key, value, *sequences, softmax_scale=scale, causal=causal)
    return output


def is_available(choice: Choice) -> bool:
    """Tell whether the package that a choice needs is installed."""
    return choice == "auto" or bool(is_flash_attn_2_available())
