"""Float32 masters of bf16 weights, split between the weight and a remainder, and stochastic rounding to bf16.

A bf16 weight has 8 significant bits: an update of a thousandth of it would be lost. Split-SGD (arXiv 2005.04680,
section 3.1) keeps a float32 master without storing it: its upper 16 bits are the weight, its lower 16 bits belong to
the optimizer. Here the upper bits are rounded to nearest, so the weight is the best one in bf16, and the remainder is a
signed integer. Its 16 bits are held in a bf16 tensor, because collective operations do not know int16.
"""

from __future__ import annotations

import torch
from torch import Tensor

_HALF = 1 << 15
_PRIMES = (0x2C1B3C6D, 0x297A2D39)
_GOLDEN = 0x61C88647


def join(weight: Tensor, remainder: Tensor) -> Tensor:
    """Return the float32 master of a bf16 weight and its remainder; a remainder of zeros gives the weight itself."""
    bits = weight.view(torch.int16).to(torch.int32).bitwise_left_shift_(16).add_(remainder.view(torch.int16))
    return bits.view(torch.float32)


def split(master: Tensor, weight: Tensor, remainder: Tensor) -> None:
    """Write a float32 master to a bf16 weight, rounded to nearest, and its remainder; :func:`join` reverses it."""
    bits = master.view(torch.int32)
    upper = (bits + _HALF).bitwise_right_shift_(16)
    weight.view(torch.int16).copy_(upper)
    remainder.view(torch.int16).copy_(bits - upper.bitwise_left_shift_(16))


def round_stochastically(values: Tensor, target: Tensor, seed: int) -> None:
    """Write float32 values to a bf16 tensor, rounded up or down with probabilities that make the mean exact.

    Rounding to nearest would stop an exponential moving average: with β₂ = 0.99 its steps are often below half of the
    distance between bf16 numbers. The random bits are a hash of the seed and the place in the tensor, so the result
    does not depend on the state of any generator.

    Args:
        values: float32, flat.
        target: bf16, of the same shape; overwritten.
        seed: different for every tensor and step, below 2³¹.
    """
    noise = torch.arange(len(values), dtype=torch.int32, device=values.device).mul_(_GOLDEN).add_(seed)
    for prime in _PRIMES:  # the mixer of hash-prospector (C. Wellons), signed: only the lower bits of the result count
        noise.bitwise_xor_((noise >> 15).bitwise_and_(0x1FFFF)).mul_(prime)
    noise.bitwise_right_shift_(16).bitwise_and_(0xFFFF)
    target.view(torch.int16).copy_((values.view(torch.int32) + noise).bitwise_right_shift_(16))
