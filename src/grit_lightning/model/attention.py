"""Attention that computes the shared prompt of several completions only once, in packed rows and in decoding.

Models are loaded with this module's attention under one of :data:`NAMES`. It computes ordinary sdpa unless the model
is called with a :class:`Layout`, which then computes the attention of the language model's layers. The names differ
only in the layout that :func:`packed_layout` chooses for packed rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAMES: Mapping[str, str] = {"auto": "shared_prefix", "flex": "shared_prefix_flex", "sdpa": "shared_prefix_mask"}
"""Names under which this attention is registered in ``transformers``, by value of ``model.attn_implementation``."""


class Layout(Protocol):
    """A rule for which positions see which, and a way to compute attention under it."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return the attention's output, shape (B, H, S, D).

        Args:
            layer: index of the layer.
            query: queries, shape (B, H, S, D), with rotary positions applied.
            key: keys, shape (B, K, S, D), with rotary positions applied; H / K query heads share a key head.
            value: values, shape (B, K, S, D).
            scale: factor of the scores before the softmax.
        """
        ...


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention for ``transformers``: return the output, shape (B, S, H, D), and ``None`` for the weights."""
    if layout is None or not module.is_causal:  # the vision tower receives the layout, too
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    output = layout.attend(int(module.layer_idx), query, key, value, kwargs["scaling"])  # type: ignore[arg-type]
    return output.transpose(1, 2).contiguous(), None


for _name in NAMES.values():
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, sdpa_mask)


def arguments(layout: Layout) -> dict[str, Any]:
    """Return the arguments with which to call a model so that the layout computes its attention.

    The mask is a placeholder that nothing reads: given a 4-dimensional mask, ``transformers`` builds none of its own.
    """
    return {"layout": layout, "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool)}


def takes_layout(model: nn.Module) -> bool:
    """Tell whether a model was loaded with this attention."""
    return _implementation(model) in NAMES.values()


def packed_layout(model: nn.Module, parts_B: Sequence[Sequence[int]], segments_B_S: Tensor) -> Layout | None:
    """Return the layout with which a model computes packed rows; ``None`` to use sdpa with the full mask.

    Args:
        model: the model, whose attention implementation decides.
        parts_B: see :class:`PackedLayout`.
        segments_B_S: see :class:`FlexLayout`.
    """
    name = _implementation(model)
    if name == NAMES["auto"]:
        return PackedLayout(parts_B)
    return FlexLayout(segments_B_S) if name == NAMES["flex"] else None


def _implementation(model: nn.Module) -> str:
    implementation: str = model.config.get_text_config()._attn_implementation  # type: ignore[union-attr,operator]
    return implementation


class PackedLayout:
    """Layout of rows ``[prompt | o_1 | … | o_G | padding]``, in which a completion sees the prompt and itself.

    The prompt and each completion are separate sdpa calls over exactly the keys they may see. The only masked pairs
    that are still computed lie within a completion. Memory is that of the longest part's call and does not grow with
    the square of the row's length.

    Args:
        parts_B: for each row, the lengths of its parts: the prompt, each completion, the padding.
    """

    def __init__(self, parts_B: Sequence[Sequence[int]]) -> None:
        self.parts_B = parts_B
        self._masks: dict[tuple[int, int], Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return the output, shape (B, H, S, D); it is 0 for padding."""
        rows = zip(self.parts_B, query.split(1), key.split(1), value.split(1), strict=True)
        return torch.cat([self._row(parts, *tensors, scale=scale) for parts, *tensors in rows])

    def _row(self, parts: Sequence[int], query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
        (query_0, *queries, rest), (key_0, *keys, _), (value_0, *values, _) = (
            tensor.split(list(parts), dim=2) for tensor in (query, key, value)
        )
        grouped = query.shape[1] != key.shape[1]
        outputs = [
            scaled_dot_product_attention(query_0, key_0, value_0, is_causal=True, scale=scale, enable_gqa=grouped)
        ]
        for part, own_key, own_value in zip(queries, keys, values, strict=True):
            if part.shape[2] == 0:  # a completion of one token, whose last token is never an input
                continue
            outputs.append(
                scaled_dot_product_attention(
                    part,
                    torch.cat([key_0, own_key], dim=2),
                    torch.cat([value_0, own_value], dim=2),
                    attn_mask=self._mask(part.shape[2], key_0.shape[2], query.device),
                    scale=scale,
                    enable_gqa=grouped,
                )
            )
        return torch.cat([*outputs, torch.zeros_like(rest)], dim=2)

    def _mask(self, length: int, prompt: int, device: torch.device) -> Tensor:
        if (length, prompt) not in self._masks:
            sees = torch.ones(length, prompt + length, dtype=torch.bool, device=device)
            self._masks[length, prompt] = sees.tril(diagonal=prompt)
        return self._masks[length, prompt]


class FlexLayout:
    """Layout of the same rows as :class:`PackedLayout`, in one call of FlexAttention.

    The kernel skips the blocks of queries and keys in which everything is masked. Its gradient needs CUDA.

    Args:
        segments_B_S: segment of each position, int64; see :func:`~grit_lightning.model.packing.block_mask`.
    """

    def __init__(self, segments_B_S: Tensor) -> None:
        def sees(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
            segment = segments_B_S[row, key]
            return (key <= query) & ((segment == 0) | (segment == segments_B_S[row, query]))

        rows, length = segments_B_S.shape
        self._blocks = create_block_mask(sees, rows, None, length, length, device=segments_B_S.device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return the output, shape (B, H, S, D)."""
        grouped = query.shape[1] != key.shape[1]
        kernel = _flex_attention(query.device.type)
        return kernel(query, key, value.to(query.dtype), block_mask=self._blocks, scale=scale, enable_gqa=grouped)


@cache
def _flex_attention(device: str) -> Callable[..., Any]:
    # Compiled, it is one kernel. On a CPU, for tests, it stays uncompiled: it computes all scores and masks most out.
    function: Any = flex_attention
    return torch.compile(function, dynamic=True) if device == "cuda" else function
