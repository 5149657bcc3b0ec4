"""Storage of AdamW's two moments: in float32, in bf16 with stochastic rounding, or in 8 bits by blocks."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.utils import is_bitsandbytes_available

from grit_lightning.errors import ConfigError
from grit_lightning.training.optimizers.masters import round_stochastically

Moments = Literal["float32", "bfloat16", "int8"]
"""Values of ``optimizer.moments``."""

NAMES = ("exp_avg", "exp_avg_sq")
"""Names of the moments in the optimizer's state, as in torch."""

BLOCK = 256
"""Values of an 8-bit moment that share a scale."""

SMALLEST = 4096
"""Tensors with fewer values keep float32 moments when ``int8`` is chosen, as Dettmers et al. advise."""


def require_available(moments: Moments) -> None:
    """Check that the package is installed that 8-bit moments need.

    Raises:
        ConfigError: it is not.
    """
    if moments == "int8" and not is_bitsandbytes_available():
        raise ConfigError("optimizer.moments=int8 needs bitsandbytes: pip install 'grit-lightning[quantize]'")


def empty(weight: Tensor, moments: Moments) -> dict[str, Tensor]:
    """Return the state of two moments of zero for a weight, by name; sharded like the weight."""
    if moments == "int8" and weight.numel() >= SMALLEST:
        count = -(-weight.numel() // BLOCK)
        state: dict[str, Tensor] = {}
        for name in NAMES:
            # A scale of 0 makes every code 0.
            state[name] = torch.zeros_like(weight, dtype=torch.uint8)
            state[f"{name}_scale"] = torch.zeros(count, dtype=torch.float32, device=weight.device)
        return state
    dtype = torch.bfloat16 if moments == "bfloat16" else torch.float32
    return {name: torch.zeros_like(weight, dtype=dtype) for name in NAMES}


def load(state: dict[str, Tensor], part: slice) -> list[Tensor]:
    """Return the float32 values of both moments in a range of flat places; the range begins at a block.

    Float32 moments are views into the state.
    """
    return [_load(state, name, part) for name in NAMES]


def _load(state: dict[str, Tensor], name: str, part: slice) -> Tensor:
    stored = state[name].view(-1)[part]
    if stored.dtype != torch.uint8:
        return stored.float()
    from bitsandbytes.functional import dequantize_blockwise

    scale = state[f"{name}_scale"][part.start // BLOCK : -(-part.stop // BLOCK)]
    values: Tensor = dequantize_blockwise(stored, absmax=scale, code=_code(name, stored.device), blocksize=BLOCK)
    return values


def store(state: dict[str, Tensor], part: slice, values: list[Tensor], seed: int) -> None:
    """Store values of both moments that :func:`load` returned and that were changed.

    Args:
        state: the state.
        part: the range of flat places.
        values: the new values, float32.
        seed: seed of stochastic rounding; different for every tensor, range and step, below 2³⁰.
    """
    for index, (name, value) in enumerate(zip(NAMES, values, strict=True)):
        stored = state[name].view(-1)[part]
        if stored.dtype == torch.bfloat16:
            round_stochastically(value, stored, 2 * seed + index)
        elif stored.dtype == torch.uint8:
            from bitsandbytes.functional import quantize_blockwise

            codes, quantized = quantize_blockwise(value, code=_code(name, value.device), blocksize=BLOCK)
            stored.copy_(codes)
            state[f"{name}_scale"][part.start // BLOCK : -(-part.stop // BLOCK)] = quantized.absmax


@cache
def _code(name: str, device: torch.device) -> Tensor:
    """Return the 256 values of an 8-bit moment (Dettmers et al., arXiv 2110.02861); the second one is not negative."""
    from bitsandbytes.functional import create_dynamic_map

    values: Any = create_dynamic_map(signed=name == NAMES[0])
    return values.to(device)
