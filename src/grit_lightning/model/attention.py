"""Attention functions that models are loaded with: prompts shared by completions, and vision windows in one call.

Both are registered in ``transformers`` by name. The language model computes ordinary sdpa unless the model is called
with a :class:`Layout`, which then computes the attention of its layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from grit_lightning.model.varlen import Choice, Sequences, kernel

LANGUAGE: Mapping[Choice, str] = {"auto": "shared_prompt", "flash": "shared_prompt_fa2"}
"""Names of the language model's attention, by value of ``model.attn_implementation``."""

VISION: Mapping[Choice, str] = {"auto": "windows_flash", "flash": "windows_flash_fa2"}
"""Names of the vision tower's attention. ``transformers`` hands over all windows at once only to names with "flash"."""


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


def _language_attention(
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
    if layout is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    output = layout.attend(int(module.layer_idx), query, key, value, kwargs["scaling"])  # type: ignore[arg-type]
    output = output.transpose(1, 2).contiguous()
    # With other strides, if only of an axis of one element, the next product would not be one matrix product.
    return output.flatten().view(output.shape), None


def _vision_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    choice: Choice,
    scaling: float,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of a vision tower, in which the patches of a window, image or tile see each other.

    Args:
        module: the layer.
        query, key, value: shape (B, H, S, D).
        attention_mask: always ``None``.
        choice: which kernel computes bf16 on CUDA.
        scaling: factor of the scores before the softmax.
        cu_seq_lens_q: where each window begins, and the number of patches, with B = 1; ``None`` if each of the B
            images or tiles is a window.
        max_length_q: patches of the largest window.

    Returns:
        The output, shape (B, S, H, D), and ``None`` for the weights.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)
    call = kernel(choice, query.device, value.dtype)
    if call is None:
        return _by_window(query, key, value, scaling, cu_seq_lens_q).transpose(1, 2), None
    batch, _, length, _ = query.shape
    if cu_seq_lens_q is None:
        windows = Sequences.of([length] * batch, [length] * batch, query.device)
    else:
        assert max_length_q is not None
        starts = cu_seq_lens_q.to(torch.int32)
        windows = Sequences(starts, starts, int(max_length_q), int(max_length_q))
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))  # (B·S, H, D)
    return call(query, key, value, windows, scale=scaling, causal=False).unflatten(0, (batch, length)), None


def _by_window(query: Tensor, key: Tensor, value: Tensor, scale: float, starts: Tensor | None) -> Tensor:
    """Compute windows of equal size that follow each other in one call; return the output, shape (B, H, S, D)."""
    if starts is None:
        return scaled_dot_product_attention(query, key, value, scale=scale)
    runs = [(size, len(list(equal))) for size, equal in groupby(starts.diff().tolist())]
    lengths = [size * count for size, count in runs]
    outputs = []
    for run, *tensors in zip(runs, *(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True):
        size, count = run
        query_, key_, value_ = (part[0].unflatten(1, (count, size)).transpose(0, 1) for part in tensors)
        output = scaled_dot_product_attention(query_, key_, value_, scale=scale)  # (windows, H, size, D)
        outputs.append(output.transpose(0, 1).flatten(1, 2))
    return torch.cat(outputs, dim=1)[None]


for _choice in LANGUAGE:
    AttentionInterface.register(LANGUAGE[_choice], _language_attention)
    AttentionMaskInterface.register(LANGUAGE[_choice], sdpa_mask)
    AttentionInterface.register(VISION[_choice], partial(_vision_attention, choice=_choice))
    AttentionMaskInterface.register(VISION[_choice], sdpa_mask)


def set_vision_attention(model: PreTrainedModel, choice: Choice) -> None:
    """Make the vision tower of a loaded model use this module's attention."""
    model.get_encoder("image").config._attn_implementation = VISION[choice]


def arguments(layout: Layout) -> dict[str, Any]:
    """Return the arguments with which to call a model so that the layout computes its attention.

    The mask is a placeholder that nothing reads: given a 4-dimensional mask, ``transformers`` builds none of its own.
    """
    return {"layout": layout, "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool)}


def choice_of(model: nn.Module) -> Choice:
    """Return the value of ``model.attn_implementation`` that a model was loaded with.

    Raises:
        ValueError: the model was loaded with an attention that is not of this module.
    """
    name = model.config.get_text_config()._attn_implementation  # type: ignore[union-attr,operator]
    if name not in LANGUAGE.values():
        raise ValueError(f"the model's attention is {name}, expected one of {', '.join(LANGUAGE.values())}")
    return next(choice for choice in LANGUAGE if LANGUAGE[choice] == name)
