"""Gumbel-max sampling with counter-based noise: which token is drawn is a pure function of logits and a counter.

Adding independent Gumbel(0, 1) noise to logits and taking the argmax draws from their softmax (Maddison et al.,
arXiv 1411.0030). The noise is a hash of (seed, step, prompt, sample, position, token), not the output of a stateful
generator: it does not depend on what else is in the batch, on the number of ranks, or on what was drawn before.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_TILE = 1 << 15


def sequence_key(seed: int, step: int, slot: int, sample: int) -> int:
    """64 random-looking bits for one completion: number ``sample`` of prompt ``slot`` in step ``step``."""
    digest = hashlib.blake2b(f"{seed}/{step}/{slot}/{sample}".encode(), digest_size=8).digest()
    return _signed(int.from_bytes(digest, "little"))


def gumbel_noise(keys_B: Tensor, position: int | Tensor, vocab_size: int, first: int = 0) -> Tensor:
    """Standard Gumbel noise, float32, shape (B, V); from the same bits on every device.

    The hash is SplitMix64 (Steele et al., OOPSLA 2014): its finalizer over key + counter · golden ratio, in wrapping
    64-bit integers. 23 of its bits make a uniform number in (0, 1) whose ends are representable in float32.

    Args:
        keys_B: :func:`sequence_key` of each row, int64.
        position: index of the token within the completion; a scalar tensor, if any.
        vocab_size: V, the tokens to make noise for.
        first: the first of them.
    """
    counter_V = torch.arange(first, first + vocab_size, device=keys_B.device) + (position << 32)
    bits_B_V = _finalize(keys_B[:, None] + counter_V * _signed(_GOLDEN))
    uniform_B_V = _shift_right(bits_B_V, 41).float().add_(0.5).mul_(2.0**-23)
    return uniform_B_V.log_().neg_().log_().neg_()


def draw_tokens(scores_B_V: Tensor, keys_B: Tensor, position: int | Tensor) -> Tensor:
    """A token of each row from the softmax of its scores, int64, shape (B,): the argmax of scores and noise.

    Args:
        scores_B_V: logits that temperature, top-k and top-p have been applied to, float32; overwritten.
        keys_B: :func:`sequence_key` of each row, int64.
        position: index of the token within the completion.
    """
    # Tile by tile, on a CPU: what the hash passes through again and again then stays in the cache.
    size = max(1, _TILE // len(keys_B)) if scores_B_V.device.type == "cpu" else scores_B_V.shape[1]
    for first in range(0, scores_B_V.shape[1], size):
        tile_B_V = scores_B_V[:, first : first + size]
        tile_B_V += gumbel_noise(keys_B, position, tile_B_V.shape[1], first)
    return scores_B_V.argmax(dim=-1)


def _finalize(x: Tensor) -> Tensor:
    """In place."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
    x.bitwise_xor_(_shift_right(x, 27)).mul_(_signed(0x94D049BB133111EB))
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # torch shifts signed integers arithmetically; the hash wants the vacated bits zero.
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    value &= _MASK_64
    return value - (1 << 64) if value >> 63 else value
