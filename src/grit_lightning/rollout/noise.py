"""Gumbel-max sampling with counter-based noise: the sampled token is a pure function of the logits and a counter.

Adding independent Gumbel(0, 1) noise to logits and taking the argmax draws from their softmax (Maddison et al.,
arXiv 1411.0030). The noise is a hash of (seed, step, prompt, sample, position, token), not the output of a stateful
generator. It therefore does not depend on the rest of the batch, on the number of ranks, or on earlier draws.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_TILE = 1 << 15


def sequence_key(seed: int, step: int, slot: int, sample: int) -> int:
    """Return a pseudorandom signed 64-bit key for completion ``sample`` of prompt ``slot`` in step ``step``."""
    digest = hashlib.blake2b(f"{seed}/{step}/{slot}/{sample}".encode(), digest_size=8).digest()
    return _signed(int.from_bytes(digest, "little"))


def gumbel_noise(keys_B: Tensor, position: int | Tensor, vocab_size: int, first: int = 0) -> Tensor:
    """Return standard Gumbel noise, float32, shape (B, V), derived from the same bits on every device.

    The hash is SplitMix64 (Steele et al., OOPSLA 2014): its finalizer of key + counter · golden ratio, in wrapping
    64-bit integers. 23 of its bits make a uniform number in (0, 1); float32 represents its smallest and largest value
    exactly, so it is never 0 or 1.

    Args:
        keys_B: :func:`sequence_key` of each row, int64.
        position: index of the token within the completion, an integer or a tensor of shape (1,) or (B,).
        vocab_size: V, number of tokens to make noise for.
        first: id of the first of these tokens.
    """
    counter_V = torch.arange(first, first + vocab_size, device=keys_B.device)
    offset_N_1 = torch.as_tensor(position, device=keys_B.device).view(-1, 1) << 32  # N is 1 or B
    bits_B_V = _finalize(keys_B[:, None] + (counter_V + offset_N_1) * _signed(_GOLDEN))
    uniform_B_V = _shift_right(bits_B_V, 41).float().add_(0.5).mul_(2.0**-23)
    return uniform_B_V.log_().neg_().log_().neg_()


def draw_tokens(
    logits_B_V: Tensor, keys_B: Tensor, position: int | Tensor, *, temperature: float, banned: tuple[int, ...]
) -> Tensor:
    """Sample a token for each row from the softmax of logits / temperature, int64, shape (B,).

    It is the argmax of scores and noise. On a GPU it is one compiled pass that reads each logit once and writes only
    the tokens. Without a compiler it takes 31 kernels, most of them over 64-bit integers of the size of the logits.

    Args:
        logits_B_V: logits after top-k and top-p, float32; overwritten on a CPU.
        keys_B: :func:`sequence_key` of each row, int64.
        position: index of the token within the completion, an integer or a tensor of shape (1,) or (B,).
        temperature: the sampling temperature, > 0.
        banned: ids of tokens that are never drawn.
    """
    if logits_B_V.is_cuda:
        position = torch.as_tensor(position, device=keys_B.device)
        mask_V = _mask(banned, logits_B_V.shape[1], keys_B.device)
        return fused(_draw)(logits_B_V, keys_B, position, mask_V, temperature)
    scores_B_V = without(logits_B_V, banned).div_(temperature)
    # On a CPU, noise is made in tiles that fit the processor's cache, because the hash passes over them many times.
    size = max(1, _TILE // len(keys_B))
    for first in range(0, scores_B_V.shape[1], size):
        tile_B_V = scores_B_V[:, first : first + size]
        tile_B_V += gumbel_noise(keys_B, position, tile_B_V.shape[1], first)
    return scores_B_V.argmax(dim=-1)


def _draw(logits_B_V: Tensor, keys_B: Tensor, position: Tensor, banned_V: Tensor, temperature: float) -> Tensor:
    scores_B_V = (logits_B_V / temperature).masked_fill(banned_V, -torch.inf)
    return (scores_B_V + gumbel_noise(keys_B, position, logits_B_V.shape[1])).argmax(dim=-1)


def without(logits_B_V: Tensor, banned: tuple[int, ...]) -> Tensor:
    """Set the logits of banned tokens to −∞, in place."""
    return logits_B_V.index_fill_(1, _ids(banned, logits_B_V.device), -torch.inf)


@cache  # never freed, because recorded graphs read it
def _ids(ids: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(ids, dtype=torch.long, device=device)


@cache
def _mask(ids: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    return torch.zeros(size, dtype=torch.bool, device=device).index_fill_(0, _ids(ids, device), True)


@cache
def fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that computes the same in one kernel, compiled at its first call; itself without a compiler."""
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=True)

    def call(*arguments: Tensor | float) -> Tensor:
        nonlocal compiled
        try:
            return compiled(*arguments)
        except Exception as error:  # of any of the tools behind torch.compile, which share no base class
            if compiled is function:
                raise
            log.warning("the sampling noise is slower than it could be: torch.compile failed (%s)", _first_line(error))
            compiled = function
            return function(*arguments)

    return call


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _finalize(x: Tensor) -> Tensor:
    """Apply the finalizer of SplitMix64 in place."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
    x.bitwise_xor_(_shift_right(x, 27)).mul_(_signed(0x94D049BB133111EB))
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # torch shifts signed integers arithmetically; the hash needs zeros in the vacated bits.
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    value &= _MASK_64
    return value - (1 << 64) if value >> 63 else value
