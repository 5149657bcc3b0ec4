"""Matrix products of bf16 tensors with float32 results.

A bf16 result has 8 significant bits: a logit of 20 would be rounded to a multiple of 0.125. The products themselves are
summed in float32 in either case, so a float32 result costs only its memory.
"""

from __future__ import annotations

import torch
from torch import Tensor


def product(first: Tensor, second: Tensor) -> Tensor:
    """Return the matrix product of two matrices or of two batches of matrices, float32 or wider.

    Autocast does not apply.

    Args:
        first: shape (N, K) or (B, N, K).
        second: shape (K, M) or (B, K, M), of the same dtype.

    Returns:
        The product, shape (N, M) or (B, N, M).
    """
    multiply = torch.bmm if first.ndim == 3 else torch.mm
    with torch.autocast(first.device.type, enabled=False):
        if first.dtype.itemsize >= torch.float32.itemsize:
            return multiply(first, second)
        if has_wide_results(first.device):
            return multiply(first, second, out_dtype=torch.float32)
        return multiply(first.float(), second.float())


def add_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    """Add the matrix product of two matrices to a float32 (or wider) total, in place.

    Args:
        total: shape (N, M).
        first: shape (N, K).
        second: shape (K, M), of the same dtype.
    """
    if first.dtype == total.dtype:
        total.addmm_(first, second)
    elif has_wide_results(first.device):
        torch.ops.aten.addmm.dtype_out(total, first, second, total.dtype, out=total)
    else:
        total.addmm_(first.to(total.dtype), second.to(total.dtype))


def has_wide_results(device: torch.device) -> bool:
    """Tell whether a device multiplies bf16 matrices into a float32 result without converting the matrices."""
    return device.type == "cuda"
