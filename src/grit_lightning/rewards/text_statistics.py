"""Rewards that only count words, tokens and characters."""

from __future__ import annotations

from collections.abc import Sequence

from grit_lightning.types import Completion, Sample


def repetition(
    sample: Sample, completion: Completion, *, size: float, word_ngram: int, token_ngram: int
) -> float | None:
    """``size`` × (1 − w − t), between ``−size`` and ``size``: w and t are shares of immediate repetitions.

    Of n words, w is the share of the n − ``word_ngram`` positions i whose ``word_ngram`` words equal those at
    i + ``word_ngram``; of n tokens, t is the same over the n − 2·``token_ngram`` + 1 positions with room for two. The
    unequal denominators are the reference's. ``size`` for less than ``word_ngram`` words or 2·``token_ngram`` tokens;
    0, not ``size``, for an empty completion; unscored when text came without its tokens.
    """
    words, tokens = completion.text.split(), completion.token_ids
    if not words:
        return 0.0
    if not tokens:
        return None
    if len(words) < word_ngram or len(tokens) < 2 * token_ngram:
        return size
    w = _repeats(words, word_ngram) / max(len(words) - word_ngram, 1)
    t = _repeats(tokens, token_ngram) / (len(tokens) - 2 * token_ngram + 1)
    return size * (1 - w - t)


def length_budget(sample: Sample, completion: Completion, *, limit: int, soft: float) -> float | None:
    """1 for a completion of few tokens, 0 from ``limit`` tokens on, linear over the last share ``soft`` before it.

    It is 1 + R_length of DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13) with L_max = ``limit`` and
    L_cache = ``soft`` · ``limit``; the constant is the same for all, so it has no part in an advantage. Unscored when
    text came without its tokens.
    """
    length = len(completion.token_ids)
    if completion.text.strip() and not length:
        return None
    if length <= limit * (1 - soft):
        return 1.0
    return max(limit - length, 0) / (limit * soft) if soft else 0.0


def digit_share(sample: Sample, completion: Completion) -> float:
    """Share of the characters that are ``0`` to ``9``, 0 to 1; 0 for an empty text.

    No aim in itself: it rises within a few steps on any model, which shows that optimisation works.
    """
    text = completion.text
    return sum(map(text.count, "0123456789")) / max(len(text), 1)


def _repeats(items: Sequence[object], ngram: int) -> int:
    """Number of positions at which ``ngram`` items are followed by the same ``ngram`` items."""
    starts = range(len(items) - 2 * ngram + 1)
    return sum(items[i : i + ngram] == items[i + ngram : i + 2 * ngram] for i in starts)
